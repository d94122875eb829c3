#include "server/server_flags.h"

#include <algorithm>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "adapters/base/status_macros.h"
#include "server/version.h"

#define TENON_FLAG(type, name, default_value, help) ABSL_FLAG(type, name, default_value, help);
#include "server/server_flags.inc"
#undef TENON_FLAG
ABSL_FLAG(bool, print_config, false, "Print the configuration that holds and exit.");

namespace tenon {
namespace {

constexpr absl::string_view kFlagNames[] = {
#define TENON_FLAG(type, name, default_value, help) #name,
#include "server/server_flags.inc"
#undef TENON_FLAG
};

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat("TENON_", absl::AsciiStrToUpper(flag));
}

absl::Status ReadEnvironment(const Environment& environment) {
  for (const absl::string_view name : kFlagNames) {
    const std::string variable = VariableOf(name);
    const char* value = environment(variable.c_str());
    std::string error;
    if (value != nullptr && !absl::FindCommandLineFlag(name)->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(
          absl::StrCat(variable, "='", value, "' is not a value of --", name, ": ", error));
    }
  }
  return absl::OkStatus();
}

// absl's flags have underscores; people write dashes.
std::vector<std::string> WithUnderscores(int argc, char** argv) {
  std::vector<std::string> args(argv, argv + argc);
  for (size_t i = 1; i < args.size(); ++i) {
    if (args[i] == "--") {
      break;
    }
    if (absl::StartsWith(args[i], "--")) {
      const auto end = std::find(args[i].begin(), args[i].end(), '=');
      std::replace(args[i].begin() + 2, end, '-', '_');
    }
  }
  return args;
}

absl::Status ParseCommandLine(int argc, char** argv) {
  std::vector<std::string> args = WithUnderscores(argc, argv);
  std::vector<char*> pointers;
  for (std::string& arg : args) {
    pointers.push_back(arg.data());
  }
  pointers.push_back(nullptr);
  const std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(args.size()), pointers.data());
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", rest[1], "'"));
  }
  return absl::OkStatus();
}

void DescribeProgram() {
  absl::SetProgramUsageMessage(
      "Serves one base model and many LoRA adapters over gRPC.\n\n"
      "  tenon-server --model=/models/smollm2 --store=/var/lib/tenon\n\n"
      "Flags may be written with dashes or underscores. Each has an environment variable\n"
      "(--kv-cache-bytes: TENON_KV_CACHE_BYTES), which the flag overrides.");
  absl::FlagsUsageConfig usage;
  const auto is_ours = [](absl::string_view file) {
    return absl::StrContains(file, "server/server_flags.");  // .cc and .inc
  };
  usage.contains_helpshort_flags = is_ours;
  usage.contains_help_flags = is_ours;
  usage.contains_helppackage_flags = is_ours;
  usage.version_string = [] { return absl::StrCat("tenon-server ", kVersion, "\n"); };
  absl::SetFlagsUsageConfig(usage);
}

ServerConfig CollectFlags() {
  ServerConfig config;
#define TENON_FLAG(type, name, default_value, help) config.name = absl::GetFlag(FLAGS_##name);
#include "server/server_flags.inc"
#undef TENON_FLAG
  config.print_config = absl::GetFlag(FLAGS_print_config);
  return config;
}

}  // namespace

absl::StatusOr<ServerConfig> ReadServerConfig(int argc, char** argv,
                                              const Environment& environment) {
  static const bool described = (DescribeProgram(), true);  // absl takes it once
  static_cast<void>(described);
  TENON_RETURN_IF_ERROR(ReadEnvironment(environment));
  TENON_RETURN_IF_ERROR(ParseCommandLine(argc, argv));
  ServerConfig config = CollectFlags();
  TENON_RETURN_IF_ERROR(ValidateServerConfig(config));
  return config;
}

std::string PrintServerConfig() {
  std::string text;
  for (const absl::string_view name : kFlagNames) {
    absl::StrAppend(&text, "--", name, "=", absl::FindCommandLineFlag(name)->CurrentValue(), "\n");
  }
  return text;
}

}  // namespace tenon
