#include "client/tenonctl/command.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/tenonctl/request_flags.h"
#include "client/tenonctl/residency_commands.h"
#include "client/tenonctl/tenant_commands.h"
#include "client/tenonctl/version_commands.h"

namespace tenon {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:50051";
constexpr char kDefaultAdminServer[] = "unix:tenon-store/admin.sock";

std::span<const FlagSpec> GlobalFlags() {
  static const auto& flags = *new std::vector<FlagSpec>{
      {"server", "ADDRESS",
       absl::StrCat("host:port or unix:/path; else $TENON_SERVER, else ", kDefaultServer,
                    "; for tenants and keys $TENON_ADMIN_SERVER, else ", kDefaultAdminServer)},
      {"api-key-file", "FILE", "file with an API key or a JWT; else $TENON_API_KEY, else none"},
      {"tls-ca-file", "FILE", "use TLS; the server's certificate must come from these authorities"},
      {"timeout", "DURATION", "give up after this long, for example 30s"},
      {"json", "", "print the server's answer as JSON"},
      {"help", "", "explain a command"},
  };
  return flags;
}

std::vector<FlagSpec> Joined(std::span<const FlagSpec> a, std::span<const FlagSpec> b) {
  std::vector<FlagSpec> all(a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

std::vector<Command> MakeRequestCommands() {
  std::vector<FlagSpec> generate = Joined(RequestFlags(), OutputFlags());
  generate.push_back({"chat", "", "take the prompt as a user's turn of a conversation"});
  generate.push_back({"verbose", "", "print tokens and times to standard error"});
  std::vector<FlagSpec> chat = Joined(RequestFlags(), {});
  chat.push_back({"system", "TEXT", "system message at the head of the conversation"});
  chat.push_back({"verbose", "", "print tokens and times to standard error"});
  return {
      {"generate", "[PROMPT]", "continue a prompt; reads standard input without one, or for -",
       "  tenonctl generate --max-tokens=16 \"The capital of France is\"\n"
       "  tenonctl generate --adapter=ticket-router@2 --temperature=0 - < ticket.txt\n"
       "  tenonctl generate --chat --n=3 --json \"Name a fish.\"\n",
       std::move(generate), RunGenerate},
      {"chat", "", "talk to the model; Ctrl-D ends",
       "  tenonctl chat --system=\"Answer in one sentence.\"\n"
       "  tenonctl chat --adapter=support --temperature=0.2\n",
       std::move(chat), RunChat},
  };
}

std::vector<Command> MakeAdapterCommands() {
  return {
      {"adapters upload",
       "NAME FOLDER",
       "upload an adapter folder as PEFT saves it",
       "  tenonctl adapters upload ticket-router ./ticket-router\n"
       "  tenonctl adapters upload ticket-router ./new --alias=canary --probes=probes.json\n",
       {{"alias", "ALIAS", "the alias that moves to the new version; default latest"},
        {"no-promote", "", "move no alias: the version is there by its number only"},
        {"expect", "VERSION", "only if the alias points to this version now; 0: to none"},
        {"probes", "FILE", "JSON with prompts and what they must answer before it goes live"}},
       RunUpload},
      {"adapters list",
       "",
       "all adapters and their versions",
       "  tenonctl adapters list\n  tenonctl adapters list --json\n",
       {},
       RunList},
      {"adapters get",
       "NAME[@VERSION|@ALIAS]",
       "one version of an adapter, and how it was accepted",
       "  tenonctl adapters get ticket-router@2\n",
       {},
       RunGet},
      {"adapters delete",
       "NAME[@VERSION]",
       "delete a version, or all of them; requests in flight finish",
       "  tenonctl adapters delete ticket-router@1\n  tenonctl adapters delete ticket-router\n",
       {{"force", "", "also a version that aliases point to: they go back to where they were"}},
       RunDelete},
      {"adapters share",
       "NAME",
       "let other tenants use an adapter, or say who may",
       "  tenonctl adapters share ticket-router --with=globex,initech\n"
       "  tenonctl adapters share ticket-router --nobody\n"
       "  tenonctl adapters share ticket-router\n",
       {{"with", "TENANTS", "these tenants, separated by commas; no others"},
        {"everybody", "", "every tenant of the server"},
        {"nobody", "", "its own tenant alone"}},
       RunShare},
      {"adapters shared",
       "",
       "what other tenants let this one use; a request names it OWNER/NAME",
       "  tenonctl adapters shared\n",
       {},
       RunShared},
      {"adapters refresh",
       "",
       "have the server look at once for what other replicas changed in a shared store",
       "  tenonctl adapters refresh --server=replica-2:50051\n",
       {},
       RunRefresh},
  };
}

std::vector<Command> MakeModelCommands() {
  return {
      {"model", "", "what the server serves, and its limits", "  tenonctl model\n", {}, RunModel},
  };
}

std::vector<Command> MakeCommands() {
  std::vector<Command> commands;
  for (const auto make : {MakeRequestCommands, MakeAdapterCommands, MakeModelCommands,
                          MakeVersionCommands, MakeResidencyCommands, MakeTenantCommands}) {
    for (Command& command : make()) {
      commands.push_back(std::move(command));
    }
  }
  return commands;
}

// The content of a flag's file, without white space around it; "" when the flag is not given.
absl::StatusOr<std::string> FileOf(const Arguments& arguments, absl::string_view flag) {
  const std::string path = arguments.GetText(flag, "");
  if (path.empty()) {
    return std::string();
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, ": cannot read '", path, "'"));
  }
  return std::string(absl::StripAsciiWhitespace(content.str()));
}

absl::StatusOr<ClientOptions> OptionsOf(const Arguments& arguments,
                                        const Environment& environment) {
  ClientOptions options;
  const absl::StatusOr<absl::Duration> timeout =
      arguments.GetDuration("timeout", absl::InfiniteDuration());
  const absl::StatusOr<std::string> key = FileOf(arguments, "api-key-file");
  const absl::StatusOr<std::string> authorities = FileOf(arguments, "tls-ca-file");
  for (const absl::Status& status : {timeout.status(), key.status(), authorities.status()}) {
    if (!status.ok()) {
      return status;
    }
  }
  options.timeout = *timeout;
  options.api_key = key->empty() ? environment("TENON_API_KEY") : *key;
  options.tls_authorities = *authorities;
  return options;
}

std::string ServerOf(const Command& command, const Arguments& arguments,
                     const Environment& environment) {
  const std::string configured =
      environment(command.is_admin ? "TENON_ADMIN_SERVER" : "TENON_SERVER");
  const char* otherwise = command.is_admin ? kDefaultAdminServer : kDefaultServer;
  return arguments.GetText("server", configured.empty() ? otherwise : configured);
}

std::string Overview() {
  std::string text = "tenonctl talks to a Tenon server.\n\n  tenonctl [flags] COMMAND ...\n\n";
  size_t width = 0;
  for (const Command& command : Commands()) {
    width = std::max(width, command.name.size());
  }
  for (const Command& command : Commands()) {
    absl::StrAppend(&text, "  ", command.name, std::string(width + 2 - command.name.size(), ' '),
                    command.summary, "\n");
  }
  absl::StrAppend(&text, "\nflags of every command:\n", DescribeFlags(GlobalFlags()),
                  "\ntenonctl COMMAND --help explains one.\n",
                  "Exit code: 0, 1 when a call failed, 2 for a wrong command line.\n");
  return text;
}

std::string HelpOf(const Command& command) {
  std::string text =
      absl::StrCat("tenonctl ", command.name, command.flags.empty() ? "" : " [flags]",
                   command.synopsis.empty() ? "" : " ", command.synopsis, "\n\n", command.summary,
                   "\n\nexamples:\n", command.examples);
  if (!command.flags.empty()) {
    absl::StrAppend(&text, "\nflags:\n", DescribeFlags(command.flags));
  }
  absl::StrAppend(&text, "\nflags of every command:\n", DescribeFlags(GlobalFlags()));
  return text;
}

int UsageError(absl::string_view message, absl::string_view command, Console& console) {
  console.err << "tenonctl: " << message << "\n"
              << "try: tenonctl" << (command.empty() ? "" : " ") << command << " --help\n";
  return 2;
}

// Reads one or two words of `args` as a command; `name` is what was read. Null when there is none.
const Command* TakeCommand(std::span<const std::string>& args, std::string& name) {
  for (size_t num_words = 1; num_words <= 2 && num_words <= args.size(); ++num_words) {
    absl::StrAppend(&name, num_words == 1 ? "" : " ", args[num_words - 1]);
    for (const Command& command : Commands()) {
      if (command.name == name) {
        args = args.subspan(num_words);
        return &command;
      }
    }
    const bool is_group = std::any_of(
        Commands().begin(), Commands().end(),
        [&](const Command& command) { return absl::StartsWith(command.name, name + " "); });
    if (!is_group) {
      return nullptr;
    }
  }
  return nullptr;
}

int Report(const CommandResult& result, const Command& command, const std::string& server,
           Console& console) {
  switch (result.kind) {
    case CommandResult::Kind::kOk:
      return 0;
    case CommandResult::Kind::kUsage:
      return UsageError(result.status.message(), command.name, console);
    case CommandResult::Kind::kFailed:
      break;
  }
  console.err << "tenonctl: " << absl::StatusCodeToString(result.status.code()) << ": "
              << result.status.message() << "\n";
  if (absl::IsUnavailable(result.status)) {
    console.err << "the server is " << server << " (--server, "
                << (command.is_admin ? "TENON_ADMIN_SERVER" : "TENON_SERVER") << ")\n";
  }
  return 1;
}

int RunCommand(const Command& command, const Arguments& arguments, const Environment& environment,
               Console& console) {
  const absl::StatusOr<ClientOptions> options = OptionsOf(arguments, environment);
  if (!options.ok()) {
    return UsageError(options.status().message(), command.name, console);
  }
  const std::string server = ServerOf(command, arguments, environment);
  const Client client = Client::Connect(server, *options);
  return Report(command.run(client, arguments, console), command, server, console);
}

}  // namespace

CommandResult CommandResult::Usage(absl::string_view message) {
  return {Kind::kUsage, absl::InvalidArgumentError(message)};
}

CommandResult CommandResult::Of(const absl::Status& status) {
  return {status.ok() ? Kind::kOk : Kind::kFailed, status};
}

std::span<const Command> Commands() {
  static const auto& commands = *new std::vector<Command>(MakeCommands());
  return commands;
}

int RunTenonctl(const std::vector<std::string>& args, const Environment& environment,
                Console& console) {
  std::span<const std::string> rest = args;
  Arguments arguments;
  if (absl::Status status = arguments.Parse(rest, GlobalFlags(), /*stop_at_word=*/true);
      !status.ok()) {
    return UsageError(status.message(), "", console);
  }
  const bool asked_by_word = !rest.empty() && rest.front() == "help";
  if (asked_by_word) {
    rest = rest.subspan(1);
  }
  const bool asked = asked_by_word || arguments.GetSwitch("help");
  if (rest.empty()) {
    (asked ? console.out : console.err) << Overview();
    return asked ? 0 : 2;
  }
  std::string name;
  const Command* command = TakeCommand(rest, name);
  if (command == nullptr) {
    if (!rest.empty() && std::find(rest.begin(), rest.end(), "--help") != rest.end()) {
      console.out << Overview();
      return 0;
    }
    return UsageError(absl::StrCat("no command '", name, "'"), "", console);
  }
  if (absl::Status status = arguments.Parse(rest, Joined(GlobalFlags(), command->flags), false);
      !status.ok()) {
    return UsageError(status.message(), command->name, console);
  }
  if (asked || arguments.GetSwitch("help")) {
    console.out << HelpOf(*command);
    return 0;
  }
  return RunCommand(*command, arguments, environment, console);
}

}  // namespace tenon
