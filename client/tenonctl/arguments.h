// Command-line arguments: flags that a command declares, and the words between them.
#ifndef TENON_CLIENT_TENONCTL_ARGUMENTS_H_
#define TENON_CLIENT_TENONCTL_ARGUMENTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

/// One flag that a command knows.
struct FlagSpec {
  std::string name;   ///< with dashes: "max-tokens"
  std::string value;  ///< what stands for its value in the help, "N"; empty for a switch
  std::string help;
};

/// What was given. Flags are written --name=value, --name value or, for a switch, --name,
/// --no-name, --name=true|false; dashes and underscores in a name are the same. "--" ends them, and
/// "-" alone is a word.
///
/// The Get functions answer INVALID_ARGUMENT, naming flag and value, for a value of another type; a
/// flag given twice has its last value.
class Arguments {
 public:
  /// Reads `args` from the front. With `stop_at_word`, stops in front of the first word, so that
  /// the flags known after it may be others. INVALID_ARGUMENT for an unknown flag or one without
  /// its value.
  absl::Status Parse(std::span<const std::string>& args, std::span<const FlagSpec> flags,
                     bool stop_at_word);

  const std::vector<std::string>& words() const { return words_; }
  bool has(absl::string_view name) const { return values_.contains(std::string(name)); }

  bool GetSwitch(absl::string_view name) const;
  std::string GetText(absl::string_view name, absl::string_view otherwise) const;
  /// All values of a flag that may be repeated.
  std::vector<std::string> GetTexts(absl::string_view name) const;
  absl::StatusOr<std::optional<int32_t>> GetInt(absl::string_view name) const;
  absl::StatusOr<std::optional<uint64_t>> GetUint64(absl::string_view name) const;
  absl::StatusOr<std::optional<float>> GetFloat(absl::string_view name) const;
  absl::StatusOr<absl::Duration> GetDuration(absl::string_view name,
                                             absl::Duration otherwise) const;

 private:
  const std::string* Last(absl::string_view name) const;
  absl::Status TakeFlag(absl::string_view flag, std::span<const std::string>& rest,
                        std::span<const FlagSpec> flags);

  std::vector<std::string> words_;
  std::map<std::string, std::vector<std::string>> values_;
};

/// The lines of a help text for `flags`.
std::string DescribeFlags(std::span<const FlagSpec> flags);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_ARGUMENTS_H_
