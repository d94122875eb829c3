// Runs a script of changes and prints one line for each, so that a test can kill it or fail its
// system calls at a chosen point and compare what it acknowledged with what is left.
//
//   store_driver ROOT put TENANT/NAME SEED ... promote TENANT/NAME@VERSION ALIAS ...
//     rollback TENANT/NAME ALIAS ... delete TENANT/NAME@VERSION ... check
//
// "ok put acme/fr@1 DIGEST" is the acknowledgement of an upload, which moves `latest`; a deletion
// is a forced one. Exit status: 0 when the script ran to its end, whatever the operations answered;
// 2 for a bad script; 3 when the store did not open.
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/store/adapter_versions.h"
#include "adapters/store/local_store.h"

namespace tenon {
namespace {

constexpr int64_t kMaxUploadBytes = 1 << 20;
constexpr int kNumChunks = 3;
constexpr int kChunkRepeats = 2000;

// One call, so that a line is there whole or not at all, and writev(2) because the store makes no
// such call: a test can tell acknowledgements from writes to files.
void Print(std::string line) {
  line += '\n';
  const iovec text{line.data(), line.size()};
  [[maybe_unused]] const ssize_t written = writev(STDOUT_FILENO, &text, 1);
}

std::string ErrorLine(absl::string_view operation, const absl::Status& status) {
  return absl::StrCat("error ", operation, " ", absl::StatusCodeToString(status.code()), " ",
                      status.message());
}

std::span<const std::byte> AsBytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The same files as adapter_files() in store_fault_test.py.
absl::StatusOr<AdapterInfo> Put(AdapterVersions* versions, const AdapterId& id,
                                absl::string_view seed) {
  TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, versions->Begin(kMaxUploadBytes));
  TENON_RETURN_IF_ERROR(upload->Append("adapter_config.json", AsBytes("{}")));
  std::string chunk;
  for (int i = 0; i < kChunkRepeats; ++i) {
    absl::StrAppend(&chunk, seed, ";");
  }
  for (int i = 0; i < kNumChunks; ++i) {
    TENON_RETURN_IF_ERROR(upload->Append("adapter_model.safetensors", AsBytes(chunk)));
  }
  TENON_RETURN_IF_ERROR(upload->Seal().status());
  AdapterInfo facts;
  facts.id = id;
  TENON_ASSIGN_OR_RETURN(CommittedVersion committed,
                         versions->Commit(std::move(upload), std::move(facts), {}));
  return std::move(committed.info);
}

// What is stored, and whether the registry says the same.
void Check(AdapterStore* store, const AdapterRegistry& registry) {
  const absl::StatusOr<std::vector<AdapterName>> names = store->Names();
  if (!names.ok()) {
    Print(ErrorLine("check", names.status()));
    return;
  }
  for (const AdapterName& name : *names) {
    const std::string full = absl::StrCat(name.tenant, "/", name.name);
    for (const auto& [version, info] : name.versions) {
      const absl::Status opened = store->Open(info->id).status();
      Print(opened.ok() ? absl::StrCat("version ", info->id.ToString(), " ", info->digest)
                        : ErrorLine("version", opened));
    }
    for (const auto& [alias, version] : name.pointers.aliases) {
      Print(absl::StrCat("alias ", full, "@", alias, " ", version));
    }
    const absl::StatusOr<std::vector<AliasChange>> history = store->History(name.tenant, name.name);
    Print(history.ok() ? absl::StrCat("history ", full, " ", history->size())
                       : ErrorLine("history", history.status()));
    const auto served = registry.Find(name.tenant, name.name);
    if ((served == nullptr ? AdapterPointers() : served->pointers) != name.pointers) {
      Print(absl::StrCat("error check INTERNAL the registry has other aliases of ", full));
    }
  }
  Print("ok check");
}

std::string ChangeLine(absl::string_view operation, const AdapterId& id,
                       const absl::StatusOr<NameChange>& changed) {
  if (!changed.ok()) {
    return ErrorLine(operation, changed.status());
  }
  return absl::StrCat("ok ", operation, " ", id.tenant, "/", id.name, "@", changed->change.alias,
                      " ", changed->change.to);
}

bool ParseId(absl::string_view text, AdapterId* id) {
  const std::vector<std::string> at = absl::StrSplit(text, absl::MaxSplits('@', 1));
  const std::vector<std::string> slash = absl::StrSplit(at[0], absl::MaxSplits('/', 1));
  if (slash.size() != 2 || (at.size() == 2 && !absl::SimpleAtoi(at[1], &id->version))) {
    return false;
  }
  id->tenant = slash[0];
  id->name = slash[1];
  return true;
}

int RunScript(AdapterVersions* versions, AdapterStore* store, const AdapterRegistry& registry,
              std::span<char*> script) {
  while (!script.empty()) {
    const absl::string_view operation = script[0];
    AdapterId id;
    if (operation == "check") {
      Check(store, registry);
      script = script.subspan(1);
      continue;
    }
    if (script.size() < 2 || !ParseId(script[1], &id)) {
      return 2;
    }
    if (operation == "delete") {
      const absl::Status status =
          versions->Delete(id.tenant, {id.name, id.version}, /*force=*/true, "driver").status();
      Print(status.ok() ? absl::StrCat("ok delete ", id.ToString()) : ErrorLine("delete", status));
      script = script.subspan(2);
      continue;
    }
    if (script.size() < 3) {
      return 2;
    }
    if (operation == "put") {
      const absl::StatusOr<AdapterInfo> info = Put(versions, id, script[2]);
      Print(info.ok() ? absl::StrCat("ok put ", info->id.ToString(), " ", info->digest)
                      : ErrorLine("put", info.status()));
    } else if (operation == "promote") {
      Print(ChangeLine(operation, id,
                       versions->Promote({id.tenant, id.name, script[2], id.version, std::nullopt,
                                          AliasAction::kPromote, "driver"})));
    } else if (operation == "rollback") {
      Print(ChangeLine(operation, id,
                       versions->Rollback(id.tenant, id.name, script[2], std::nullopt, "driver")));
    } else {
      return 2;
    }
    script = script.subspan(3);
  }
  return 0;
}

int Main(std::span<char*> arguments) {
  if (arguments.size() < 2) {
    return 2;
  }
  const absl::StatusOr<std::unique_ptr<LocalAdapterStore>> store =
      LocalAdapterStore::Create(arguments[1]);
  if (!store.ok()) {
    Print(ErrorLine("open", store.status()));
    return 3;
  }
  AdapterRegistry registry;
  AdapterVersions versions(store->get(), &registry, /*max_versions_per_tenant=*/1000);
  if (absl::Status restored = versions.Restore(); !restored.ok()) {
    Print(ErrorLine("open", restored));
    return 3;
  }
  Print("ok open");
  return RunScript(&versions, store->get(), registry, arguments.subspan(2));
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) { return tenon::Main(std::span(argv, static_cast<size_t>(argc))); }
