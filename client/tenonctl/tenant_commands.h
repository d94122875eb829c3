// The commands for operators and administrators: tenants and keys.
#ifndef TENON_CLIENT_TENONCTL_TENANT_COMMANDS_H_
#define TENON_CLIENT_TENONCTL_TENANT_COMMANDS_H_

#include <vector>

#include "client/tenonctl/command.h"

namespace tenon {

/// "tenants create" to "keys revoke", in the order of the help.
std::vector<Command> MakeTenantCommands();

CommandResult RunCreateTenant(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunListTenants(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunSuspend(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunResume(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunLimits(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunDeleteTenant(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunUsage(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunAudit(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunCreateKey(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunListKeys(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunRotateKey(const Client& client, const Arguments& arguments, Console& console);
CommandResult RunRevokeKey(const Client& client, const Arguments& arguments, Console& console);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_TENANT_COMMANDS_H_
