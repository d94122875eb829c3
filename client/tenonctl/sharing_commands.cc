// tenonctl adapters share, shared and refresh.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/tenonctl/command.h"
#include "client/tenonctl/output.h"

namespace tenon {
namespace {

// What the flags say, or UNSPECIFIED when they say nothing.
absl::StatusOr<v1::AdapterVisibility> Wanted(const Arguments& arguments) {
  v1::AdapterVisibility wanted;
  wanted.set_name(arguments.words()[0]);
  for (const std::string& list : arguments.GetTexts("with")) {
    for (const absl::string_view tenant : absl::StrSplit(list, ',', absl::SkipEmpty())) {
      wanted.add_tenants(std::string(tenant));
    }
  }
  const bool everybody = arguments.GetSwitch("everybody");
  const bool nobody = arguments.GetSwitch("nobody");
  if (everybody + nobody + arguments.has("with") > 1) {
    return absl::InvalidArgumentError("--with, --everybody and --nobody exclude each other");
  }
  if (everybody) {
    wanted.set_visibility(v1::VISIBILITY_PUBLIC);
  } else if (nobody) {
    wanted.set_visibility(v1::VISIBILITY_PRIVATE);
  } else if (arguments.has("with")) {
    wanted.set_visibility(v1::VISIBILITY_TENANTS);
  }
  return wanted;
}

std::string Sentence(const v1::AdapterVisibility& visibility) {
  const std::string name = PrintableText(visibility.name());
  switch (visibility.visibility()) {
    case v1::VISIBILITY_PUBLIC:
      return absl::StrCat(name, " is shared with every tenant\n");
    case v1::VISIBILITY_TENANTS:
      return absl::StrCat(name, " is shared with ", absl::StrJoin(visibility.tenants(), ", "),
                          "\n");
    default:
      return absl::StrCat(name, " is shared with nobody\n");
  }
}

}  // namespace

CommandResult RunShare(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 1) {
    return CommandResult::Usage(
        absl::StrCat("wanted: NAME; given: ", arguments.words().size(), " words"));
  }
  const absl::StatusOr<v1::AdapterVisibility> wanted = Wanted(arguments);
  if (!wanted.ok()) {
    return CommandResult::Usage(std::string(wanted.status().message()));
  }
  const absl::StatusOr<v1::AdapterVisibility> holds =
      wanted->visibility() == v1::VISIBILITY_UNSPECIFIED
          ? client.GetAdapterVisibility(wanted->name())
          : client.SetAdapterVisibility(*wanted);
  if (holds.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*holds) : Sentence(*holds));
  }
  return CommandResult::Of(holds.status());
}

CommandResult RunShared(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return CommandResult::Usage(
        absl::StrCat("wanted: no words; given: ", arguments.words().size(), " words"));
  }
  absl::StatusOr<std::vector<v1::Adapter>> adapters = client.ListSharedAdapters();
  if (!adapters.ok()) {
    return CommandResult::Of(adapters.status());
  }
  if (arguments.GetSwitch("json")) {
    v1::ListSharedAdaptersResponse response;
    response.mutable_adapters()->Add(adapters->begin(), adapters->end());
    console.out << ToJson(response);
    return {};
  }
  for (v1::Adapter& adapter : *adapters) {
    adapter.set_name(absl::StrCat(adapter.owner(), "/", adapter.name()));  // what a request writes
  }
  console.out << FormatAdapters(*adapters);
  return {};
}

CommandResult RunRefresh(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return CommandResult::Usage(
        absl::StrCat("wanted: no words; given: ", arguments.words().size(), " words"));
  }
  const absl::StatusOr<v1::RefreshResponse> response = client.Refresh();
  if (response.ok()) {
    console.out << (arguments.GetSwitch("json")
                        ? ToJson(*response)
                        : absl::StrCat("generation ", response->store_generation(), ", ",
                                       response->num_changed(), " names changed\n"));
  }
  return CommandResult::Of(response.status());
}

}  // namespace tenon
