// Paged attention of a few query rows over one KV head, written once over Vec. Include after one of
// adapters/kernels/vec_*.h, in a file compiled for its instruction set; internal linkage, as there.
//
// A block's keys fall into groups of 16 consecutive positions, four groups make a tile. Where the
// groups and tiles begin depends on the position in the sequence alone. Within a tile: scores, the
// new maximum, weights e^(score - maximum), the correction of what was summed before, the weighted
// values key by key. A key that a row must not see has weight 0, which adds nothing, and a tile in
// which it sees no key leaves its sums at zero, so a row's bits do not depend on the rows beside
// it.
#ifndef TENON_SERVER_KERNELS_ATTENTION_KERNELS_INL_H_
#define TENON_SERVER_KERNELS_ATTENTION_KERNELS_INL_H_

#include <cstdint>
#include <limits>

#include "server/kernels/vec_math_inl.h"
#include "server/kernels/vector_kernels.h"

namespace tenon {
namespace {

constexpr int64_t kTileKeys = kTileGroups * kGroupKeys;
constexpr int64_t kGroupVecs = kGroupKeys / Vec::kLanes;
// Query rows of a register block, and how many vectors of keys or values it takes with so many
// rows: 12 x 2 or 6 x 4 accumulators in 32 registers, 4 x 2 or 2 x 4 in 16.
constexpr int kAttendRows = Vec::kLanes == 16 ? 12 : 4;
constexpr int AttendVecs(int rows) { return rows <= kAttendRows / 2 ? 4 : 2; }

// Sixteen keys side by side and where their values are.
template <typename T>
struct KeyGroup {
  const T* keys;    // [head_dim, key_stride], from the group's first key on
  const T* values;  // [.., value_stride], from the group's first key on
  int64_t first_position;
  int64_t size;  // keys in the block; the other lanes are padding
};

// What a task carries from tile to tile, and the tile's own scores.
struct AttendState {
  alignas(64) float q[kQueryRows][kMaxHeadDim];    // scaled
  alignas(64) float acc[kQueryRows][kMaxHeadDim];  // sum of weights * values so far
  alignas(64) float weights[kQueryRows][kTileKeys];
  float correction[kQueryRows];
  float maximum[kQueryRows];
  float sum[kQueryRows];
};

template <typename T>
KeyGroup<T> LocateGroup(const AttentionTask<T>& task, int64_t index) {
  const int64_t groups_per_block = task.key_stride / kGroupKeys;
  const int64_t block = index / groups_per_block;
  const int64_t offset = index % groups_per_block * kGroupKeys;
  const int64_t rest = task.block_size - offset;
  return {task.keys + task.blocks[block] * task.key_block_stride + offset,
          task.values + task.blocks[block] * task.value_block_stride + offset * task.value_stride,
          block * task.block_size + offset, rest < kGroupKeys ? rest : kGroupKeys};
}

// scores[row][16 * g + lane] = q . key for M rows from `row` on and N vectors of keys.
template <typename T, int M, int N>
void ScoreBlock(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t first_vec,
                int64_t row, AttendState& state) {
  const T* keys[N];
  const T* values[N];  // fetched meanwhile, a part for each dimension
  for (int j = 0; j < N; ++j) {
    const int64_t vec = first_vec + j;
    keys[j] = groups[vec / kGroupVecs].keys + vec % kGroupVecs * Vec::kLanes;
    values[j] =
        groups[vec / kGroupVecs].values + vec % kGroupVecs * Vec::kLanes * task.value_stride;
  }
  Vec acc[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      acc[i][j] = Vec::Zero();
    }
  }
  for (int64_t d = 0; d < task.head_dim; ++d) {
    Vec k[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      k[j] = Vec::Load(keys[j] + d * task.key_stride);
      __builtin_prefetch(values[j] + d * Vec::kLanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vec q = Vec::Set(state.q[row + i][d]);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        acc[i][j] = Fma(q, k[j], acc[i][j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      acc[i][j].Store(state.weights[row + i] + (first_vec + j) * Vec::kLanes);
    }
  }
}

// acc[row][16 * c ..] = acc * correction + sum over the tile's keys of weight * value, for M rows
// and N vectors of the value. Values that none of the rows sees may hold anything.
template <typename T, int M, int N>
void ValueBlock(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
                int64_t column, int64_t row, AttendState& state) {
  const int64_t first_key = task.first_keys[row], last_position = task.positions[row + M - 1];
  // The next tile's keys are fetched meanwhile, a part for each key of this one.
  const KeyGroup<T>* next = groups + kTileGroups;
  const int64_t part = task.key_stride * task.head_dim / task.block_size;
  Vec acc[M][N];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    const Vec correction = Vec::Set(state.correction[row + i]);
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      acc[i][j] = Vec::Load(state.acc[row + i] + column + j * Vec::kLanes) * correction;
    }
  }
  for (int64_t g = 0; g < num_groups; ++g) {
    const int64_t seen = last_position - groups[g].first_position + 1;
    const int64_t size = seen < groups[g].size ? seen : groups[g].size;
    const int64_t unseen = first_key - groups[g].first_position;
    int64_t key = unseen > 0 ? unseen : 0;
    const T* value = groups[g].values + column + key * task.value_stride;
    for (; key < size; ++key, value += task.value_stride) {
      for (int64_t line = 0; line < part; line += 64 / static_cast<int64_t>(sizeof(T))) {
        __builtin_prefetch(next[g].keys + key * part + line);
      }
      Vec v[N];
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) {
        v[j] = Vec::Load(value + j * Vec::kLanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
        const Vec w = Vec::Set(state.weights[row + i][g * kGroupKeys + key]);
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j) {
          acc[i][j] = Fma(w, v[j], acc[i][j]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      acc[i][j].Store(state.acc[row + i] + column + j * Vec::kLanes);
    }
  }
}

// All scores of a tile for M rows.
template <typename T, int M>
void ScoreRows(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
               int64_t row, AttendState& state) {
  constexpr int N = AttendVecs(M);
  const int64_t vecs = num_groups * kGroupVecs;
  int64_t vec = 0;
  for (; vec + N <= vecs; vec += N) {
    ScoreBlock<T, M, N>(task, groups, vec, row, state);
  }
  for (; vec < vecs; ++vec) {
    ScoreBlock<T, M, 1>(task, groups, vec, row, state);
  }
}

// All values of a tile for M rows; rows of values are padded to whole groups of 16.
template <typename T, int M>
void ValueRows(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
               int64_t row, AttendState& state) {
  constexpr int64_t N = AttendVecs(M);
  int64_t column = 0;
  for (; column + N * Vec::kLanes <= task.value_stride; column += N * Vec::kLanes) {
    ValueBlock<T, M, N>(task, groups, num_groups, column, row, state);
  }
  for (; column < task.value_stride; column += Vec::kLanes) {
    ValueBlock<T, M, 1>(task, groups, num_groups, column, row, state);
  }
}

// Caps a row's scores: c * tanh(score / c).
inline void CapScores(float softcap, int64_t num_vecs, float* scores) {
  const Vec cap = Vec::Set(softcap);
  for (int64_t vec = 0; vec < num_vecs; ++vec) {
    float* const part = scores + vec * Vec::kLanes;
    (cap * Tanh(Vec::Load(part) / cap)).Store(part);
  }
}

// Sets the scores of keys that the row does not see to -infinity. Returns the highest score.
template <typename T>
float MaskRow(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
              int64_t row, AttendState& state) {
  const Vec hidden = Vec::Set(-std::numeric_limits<float>::infinity());
  float* const scores = state.weights[row];
  Vec highest = hidden;
  for (int64_t vec = 0; vec < num_groups * kGroupVecs; ++vec) {
    const KeyGroup<T>& group = groups[vec / kGroupVecs];
    const int64_t seen = task.positions[row] - group.first_position + 1;
    const int64_t end = seen < group.size ? seen : group.size;
    const int64_t begin = task.first_keys[row] - group.first_position;
    const Vec lane = Iota(static_cast<float>(vec % kGroupVecs * Vec::kLanes));
    Vec score = Vec::SelectLess(lane, Vec::Set(static_cast<float>(end)),
                                Vec::Load(scores + vec * Vec::kLanes), hidden);
    if (begin > 0) {
      const int64_t unseen = begin < kGroupKeys ? begin : kGroupKeys;
      score = Vec::SelectLess(lane, Vec::Set(static_cast<float>(unseen)), hidden, score);
    }
    score.Store(scores + vec * Vec::kLanes);
    highest = Max(highest, score);
  }
  return highest.Max();
}

// Masks a row's scores, turns them into weights and updates its maximum, sum and correction.
template <typename T>
void WeighRow(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
              int64_t row, AttendState& state) {
  float* weights = state.weights[row];
  if (task.softcap > 0.0f) {
    CapScores(task.softcap, num_groups * kGroupVecs, weights);
  }
  const float tile_maximum = MaskRow(task, groups, num_groups, row, state);
  const float previous = state.maximum[row];
  state.maximum[row] = previous > tile_maximum ? previous : tile_maximum;
  // No key seen so far: any number will do in place of -infinity, all weights are 0.
  const bool none = state.maximum[row] == -std::numeric_limits<float>::infinity();
  const Vec maximum = Vec::Set(none ? 0.0f : state.maximum[row]);
  Vec sum = Vec::Zero();
  for (int64_t vec = 0; vec < num_groups * kGroupVecs; ++vec) {
    const Vec weight = Exp(Vec::Load(weights + vec * Vec::kLanes) - maximum);
    weight.Store(weights + vec * Vec::kLanes);
    sum = sum + weight;
  }
  alignas(64) float correction[Vec::kLanes];
  Exp(Vec::Set(previous) - maximum).Store(correction);
  state.correction[row] = correction[0];
  state.sum[row] = state.sum[row] * correction[0] + sum.Sum();
}

// One tile for rows [row, row + M).
template <typename T, int M>
void AttendTile(const AttentionTask<T>& task, const KeyGroup<T>* groups, int64_t num_groups,
                int64_t row, AttendState& state) {
  ScoreRows<T, M>(task, groups, num_groups, row, state);
  for (int i = 0; i < M; ++i) {
    WeighRow(task, groups, num_groups, row + i, state);
  }
  ValueRows<T, M>(task, groups, num_groups, row, state);
}

template <typename T, int M>
void DispatchTile(int64_t rows, const AttentionTask<T>& task, const KeyGroup<T>* groups,
                  int64_t num_groups, int64_t row, AttendState& state) {
  if (rows == M) {
    AttendTile<T, M>(task, groups, num_groups, row, state);
  } else if constexpr (M > 1) {
    DispatchTile<T, M - 1>(rows, task, groups, num_groups, row, state);
  }
}

template <typename T>
void StartRows(const AttentionTask<T>& task, AttendState& state) {
  const Vec scale = Vec::Set(task.scale);
  for (int64_t r = 0; r < task.rows; ++r) {
    int64_t d = 0;
    for (; d + Vec::kLanes <= task.head_dim; d += Vec::kLanes) {
      (Vec::Load(task.queries[r] + d) * scale).Store(state.q[r] + d);
    }
    if (d < task.head_dim) {
      const int64_t rest = task.head_dim - d;
      (Vec::LoadPartial(task.queries[r] + d, rest) * scale).StorePartial(state.q[r] + d, rest);
    }
    for (int64_t c = 0; c < task.value_stride; c += Vec::kLanes) {
      Vec::Zero().Store(state.acc[r] + c);
    }
    state.maximum[r] = -std::numeric_limits<float>::infinity();
    state.sum[r] = 0.0f;
  }
}

template <typename T>
void FinishRows(const AttentionTask<T>& task, const AttendState& state) {
  for (int64_t r = 0; r < task.rows; ++r) {
    const Vec sum = Vec::Set(state.sum[r]);
    int64_t d = 0;
    for (; d + Vec::kLanes <= task.head_dim; d += Vec::kLanes) {
      (Vec::Load(state.acc[r] + d) / sum).Store(task.outputs[r] + d);
    }
    if (d < task.head_dim) {
      (Vec::Load(state.acc[r] + d) / sum).StorePartial(task.outputs[r] + d, task.head_dim - d);
    }
  }
}

// Finds up to a tile's groups from `index` on that hold positions up to last_position; the others
// repeat the last one, which is safe to look at.
template <typename T>
int64_t LocateTile(const AttentionTask<T>& task, int64_t index, int64_t last_position,
                   KeyGroup<T>* groups) {
  int64_t num_groups = 0;
  for (int64_t g = 0; g < kTileGroups; ++g) {
    const KeyGroup<T>* previous = g == 0 ? groups - 1 : groups + g - 1;
    if (previous->first_position + previous->size <= last_position) {
      groups[g] = LocateGroup(task, index + g);
      ++num_groups;
    } else {
      groups[g] = *previous;
    }
  }
  return num_groups;
}

// The first group of the tile that holds a position. Tiles count from position 0.
template <typename T>
int64_t TileOf(const AttentionTask<T>& task, int64_t position) {
  const int64_t groups_per_block = task.key_stride / kGroupKeys;
  const int64_t group =
      position / task.block_size * groups_per_block + position % task.block_size / kGroupKeys;
  return group / kTileGroups * kTileGroups;
}

template <typename T>
void Attend(const AttentionTask<T>& task) {
  AttendState state;
  StartRows(task, state);
  const int64_t last_position = task.positions[task.rows - 1];
  KeyGroup<T> window[1 + 2 * kTileGroups];  // the group before, this tile, the next one
  KeyGroup<T>* const tile = window + 1;
  window[0] = {task.keys, task.values, 0, 0};
  const int64_t first_tile = TileOf(task, task.first_keys[0]);
  int64_t num_groups = LocateTile(task, first_tile, last_position, tile);
  for (int64_t index = first_tile + kTileGroups; num_groups > 0; index += kTileGroups) {
    const int64_t next_groups = LocateTile(task, index, last_position, tile + kTileGroups);
    for (int64_t row = 0; row < task.rows; row += kAttendRows) {
      const int64_t rows = task.rows - row < kAttendRows ? task.rows - row : kAttendRows;
      DispatchTile<T, kAttendRows>(rows, task, tile, num_groups, row, state);
    }
    for (int64_t g = 0; g < kTileGroups; ++g) {
      tile[g] = tile[kTileGroups + g];
    }
    num_groups = next_groups;
  }
  FinishRows(task, state);
}

}  // namespace
}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ATTENTION_KERNELS_INL_H_
