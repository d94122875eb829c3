// What must not get in: adapter folders of an attacker or of a broken script, each one thing away
// from a valid folder.
#ifndef TENON_TESTS_ADAPTERS_FORMATS_HOSTILE_CORPUS_H_
#define TENON_TESTS_ADAPTERS_FORMATS_HOSTILE_CORPUS_H_

#include <vector>

#include "adapters/formats/file_set.h"

namespace tenon::testing {

/// A folder that ParseAdapter refuses with INVALID_ARGUMENT.
struct HostileFolder {
  const char* what;
  FileSet files;
  const char* message;  ///< part of the error: the thing, the value or the limit
};

/// File names and missing files.
std::vector<HostileFolder> HostileFiles();
/// PEFT: adapter_model.safetensors.
std::vector<HostileFolder> HostilePeftWeights();
/// PEFT: adapter_config.json of LoRA.
std::vector<HostileFolder> HostileLoraConfigs();
/// PEFT's other methods, in one way each that matters to them.
std::vector<HostileFolder> HostilePeftMethods();
/// AdapterHub: configuration and adapter.safetensors.
std::vector<HostileFolder> HostileAdapterHub();

/// All of the above.
std::vector<HostileFolder> HostileFolders();

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_FORMATS_HOSTILE_CORPUS_H_
