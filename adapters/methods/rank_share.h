// Who has what of a tensor-parallel model: the base's matrices and adapters are cut by these alone.
#ifndef TENON_ADAPTERS_METHODS_RANK_SHARE_H_
#define TENON_ADAPTERS_METHODS_RANK_SHARE_H_

#include <algorithm>
#include <cstdint>

namespace tenon {

/// A run of features, heads or tokens.
struct RankShare {
  int64_t begin = 0;
  int64_t count = 0;
};

/// Rank `rank`'s of `size` things, of which every rank has as many as another or one more.
inline RankShare ShareOf(int64_t size, int64_t rank, int64_t num_ranks) {
  const int64_t begin = size * rank / num_ranks;
  return {begin, size * (rank + 1) / num_ranks - begin};
}

/// The KV heads that rank `rank`'s queries read. Where there are fewer than ranks, several ranks
/// have the same one. REQUIRES: one of the two numbers divides the other.
inline RankShare KvShareOf(int64_t num_kv_heads, int64_t rank, int64_t num_ranks) {
  return {num_kv_heads * rank / num_ranks, std::max<int64_t>(num_kv_heads / num_ranks, 1)};
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_RANK_SHARE_H_
