// tenonctl adapters upload, list, get and delete.
#include <string>
#include <vector>

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

}  // namespace

CommandResult RunUpload(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 2) {
    return WrongWords("NAME FOLDER", arguments);
  }
  std::function<void(int64_t, int64_t)> on_progress;
  if (console.err_is_terminal) {
    on_progress = [&](int64_t sent, int64_t total) { PrintProgress(sent, total, console); };
  }
  const absl::StatusOr<v1::UploadAdapterResponse> response =
      client.UploadAdapter(arguments.words()[0], arguments.words()[1], on_progress);
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
              << (response->created() ? "" : " holds these files already") << "\n"
              << FormatUploadReport(adapter);
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
  const absl::StatusOr<std::vector<int64_t>> versions = client.DeleteAdapter(arguments.words()[0]);
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
