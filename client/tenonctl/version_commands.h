// tenonctl's commands for versions and aliases.
#ifndef TENON_CLIENT_TENONCTL_VERSION_COMMANDS_H_
#define TENON_CLIENT_TENONCTL_VERSION_COMMANDS_H_

#include <vector>

#include "client/tenonctl/command.h"

namespace tenon {

/// The table of them, in the order of the help.
std::vector<Command> MakeVersionCommands();

CommandResult RunWatch(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunHistory(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunPromote(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunRollback(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunSplit(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunDiff(const Client& client, const Arguments& arguments, Console& console);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_VERSION_COMMANDS_H_
