// The commands about where adapters are: load, unload, pin, unpin, merge, residency.
#ifndef TENON_CLIENT_TENONCTL_RESIDENCY_COMMANDS_H_
#define TENON_CLIENT_TENONCTL_RESIDENCY_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/tenonctl/command.h"
#include "tenon/v1/residency.pb.h"

namespace tenon {

/// "adapters load" to "adapters residency", in the order of the help.
std::vector<Command> MakeResidencyCommands();

/// A table of adapters, and the totals behind it when the server gave them. `now` is what last uses
/// are told relative to.
std::string FormatResidency(const v1::GetResidencyResponse& residency, absl::Time now);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_RESIDENCY_COMMANDS_H_
