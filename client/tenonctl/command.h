// Command: what tenonctl can do, and what its commands share.
#ifndef TENON_CLIENT_TENONCTL_COMMAND_H_
#define TENON_CLIENT_TENONCTL_COMMAND_H_

#include <functional>
#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/cpp/client.h"
#include "client/tenonctl/arguments.h"

namespace tenon {

/// The streams of the program, and which of them a person sits at.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
};

/// A call that failed, or an INVALID_ARGUMENT of the command line itself.
struct CommandResult {
  enum class Kind { kOk, kFailed, kUsage };
  Kind kind = Kind::kOk;
  absl::Status status;

  static CommandResult Usage(absl::string_view message);
  /// kOk or kFailed.
  static CommandResult Of(const absl::Status& status);
};

struct Command {
  std::string name;      ///< "adapters upload"
  std::string synopsis;  ///< its words: "NAME FOLDER"
  std::string summary;   ///< one line
  std::string examples;  ///< lines of commands
  std::vector<FlagSpec> flags;
  std::function<CommandResult(const Client&, const Arguments&, Console&)> run;
  bool is_admin = false;  ///< goes to the admin listener
};

/// All commands, in the order of the help.
std::span<const Command> Commands();

CommandResult RunGenerate(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunChat(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunUpload(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunList(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunGet(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunDelete(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunShare(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunShared(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunRefresh(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunModel(const Client& client, const Arguments& arguments, Console& console);

/// What the program may read of its environment: "" for a variable that is not set.
using Environment = std::function<std::string(const char* name)>;

/// The whole program. `args` is without the program's name. Returns the exit code: 0, 1 when a call
/// failed, 2 for a wrong command line.
int RunTenonctl(const std::vector<std::string>& args, const Environment& environment,
                Console& console);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_COMMAND_H_
