// tenonctl adapters upload, list, get and delete.
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/tenonctl/command.h"
#include "client/tenonctl/output.h"

namespace tenon {
namespace {

CommandResult WrongWords(absl::string_view wanted, const Arguments& arguments) {
  return CommandResult::Usage(
      absl::StrCat("wanted: ", wanted, "; given: ", arguments.words().size(), " words"));
}

void PrintProgress(int64_t sent, int64_t total, Console& console) {
  const int64_t percent = total == 0 ? 100 : sent * 100 / total;
  console.err << "\r" << FormatBytes(sent) << " of " << FormatBytes(total) << " (" << percent
              << "%)\x1b[K" << std::flush;
}

// A file of probes: {"probes": [...]} or the list alone, with the field names of adapters.proto.
absl::Status ReadProbes(const std::string& path, v1::UploadHeader& header) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) {
    return absl::InvalidArgumentError(absl::StrCat("--probes: cannot read '", path, "'"));
  }
  std::string json = content.str();
  if (absl::StartsWith(absl::StripLeadingAsciiWhitespace(json), "[")) {
    json = absl::StrCat("{\"probes\": ", json, "}");
  }
  v1::UploadHeader parsed;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &parsed);
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--probes: ", path, ": ", std::string(status.message())));
  }
  if (parsed.probes().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--probes: ", path, " holds no probes"));
  }
  *header.mutable_probes() = parsed.probes();
  return absl::OkStatus();
}

absl::Status TakeUploadFlags(const Arguments& arguments, v1::UploadHeader& header) {
  header.set_alias(arguments.GetText("alias", ""));
  header.set_no_promote(arguments.GetSwitch("no-promote"));
  const absl::StatusOr<std::optional<uint64_t>> expected = arguments.GetUint64("expect");
  if (!expected.ok()) {
    return expected.status();
  }
  if (expected->has_value()) {
    header.set_expected_version(static_cast<int64_t>(**expected));
  }
  const std::string probes = arguments.GetText("probes", "");
  return probes.empty() ? absl::OkStatus() : ReadProbes(probes, header);
}

}  // namespace

CommandResult RunUpload(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 2) {
    return WrongWords("NAME FOLDER", arguments);
  }
  v1::UploadHeader header;
  header.set_name(arguments.words()[0]);
  if (absl::Status status = TakeUploadFlags(arguments, header); !status.ok()) {
    return CommandResult::Usage(status.message());
  }
  std::function<void(int64_t, int64_t)> on_progress;
  if (console.err_is_terminal) {
    on_progress = [&](int64_t sent, int64_t total) { PrintProgress(sent, total, console); };
  }
  const absl::StatusOr<v1::UploadAdapterResponse> response =
      client.UploadAdapter(header, arguments.words()[1], on_progress);
  if (console.err_is_terminal) {
    console.err << "\r\x1b[K" << std::flush;
  }
  if (!response.ok()) {
    return CommandResult::Of(response.status());
  }
  if (arguments.GetSwitch("json")) {
    console.out << ToJson(*response);
    return {};
  }
  const v1::Adapter& adapter = response->adapter();
  console.out << adapter.name() << "@" << adapter.version()
              << (response->created() ? "" : " holds these files already");
  if (!adapter.aliases().empty()) {
    console.out << " (" << absl::StrJoin(adapter.aliases(), ", ") << ")";
  }
  console.out << "\n" << FormatUploadReport(adapter);
  for (const std::string& warning : adapter.warnings()) {
    console.err << "warning: " << PrintableText(warning) << "\n";
  }
  return {};
}

CommandResult RunList(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return WrongWords("no words", arguments);
  }
  const absl::StatusOr<std::vector<v1::Adapter>> adapters = client.ListAdapters();
  if (!adapters.ok()) {
    return CommandResult::Of(adapters.status());
  }
  if (arguments.GetSwitch("json")) {
    v1::ListAdaptersResponse response;
    response.mutable_adapters()->Add(adapters->begin(), adapters->end());
    console.out << ToJson(response);
  } else {
    console.out << FormatAdapters(*adapters);
  }
  return {};
}

CommandResult RunGet(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 1) {
    return WrongWords("NAME[@VERSION]", arguments);
  }
  const absl::StatusOr<v1::Adapter> adapter = client.GetAdapter(arguments.words()[0]);
  if (adapter.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*adapter) : FormatAdapter(*adapter));
  }
  return CommandResult::Of(adapter.status());
}

CommandResult RunDelete(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 1) {
    return WrongWords("NAME[@VERSION]", arguments);
  }
  const absl::StatusOr<std::vector<int64_t>> versions =
      client.DeleteAdapter(arguments.words()[0], arguments.GetSwitch("force"));
  if (!versions.ok()) {
    return CommandResult::Of(versions.status());
  }
  if (arguments.GetSwitch("json")) {
    v1::DeleteAdapterResponse response;
    response.mutable_versions()->Add(versions->begin(), versions->end());
    console.out << ToJson(response);
    return {};
  }
  const std::string name = arguments.words()[0].substr(0, arguments.words()[0].find('@'));
  console.out << "deleted "
              << absl::StrJoin(*versions, ", ",
                               [&](std::string* out, int64_t version) {
                                 absl::StrAppend(out, name, "@", version);
                               })
              << "\n";
  return {};
}

}  // namespace tenon
