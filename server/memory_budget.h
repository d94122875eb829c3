// How much memory the KV cache takes when nobody says.
#ifndef TENON_SERVER_MEMORY_BUDGET_H_
#define TENON_SERVER_MEMORY_BUDGET_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace tenon {

/// MemAvailable of /proc/meminfo (proc(5)), in bytes, if it is there.
std::optional<int64_t> ParseMemAvailable(absl::string_view meminfo);

/// What a control group still allows, from memory.max ("max": nothing to say) and memory.current.
std::optional<int64_t> ParseCgroupRoom(absl::string_view max, absl::string_view current);

/// The smaller of both for this process; none when the system does not tell.
std::optional<int64_t> AvailableMemoryBytes();

/// Half of what is available, since adapters, activations and the page cache need some too, and
/// never more than `most_bytes`, with which every place of the batch could hold a whole context.
int64_t ChooseKvCacheBytes(std::optional<int64_t> available_bytes, int64_t most_bytes);

}  // namespace tenon

#endif  // TENON_SERVER_MEMORY_BUDGET_H_
