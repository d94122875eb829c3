// SnapshotMap: a map from names whose copies share what they have in common.
#ifndef TENON_ADAPTERS_REGISTRY_SNAPSHOT_MAP_H_
#define TENON_ADAPTERS_REGISTRY_SNAPSHOT_MAP_H_

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Names hashed into 64 shared buckets: to copy the map and change one name costs 64 pointers and
/// one bucket, a sixty-fourth of the entries. Value is cheap to copy (a shared_ptr). Thread-safe
/// for readers only, as std::map is.
template <typename Value>
class SnapshotMap {
 public:
  /// The value, or null. Valid until this copy of the map changes or goes.
  const Value* Find(absl::string_view name) const {
    const std::shared_ptr<const Bucket>& bucket = buckets_[Index(name)];
    if (bucket == nullptr) {
      return nullptr;
    }
    const auto position = bucket->find(name);
    return position == bucket->end() ? nullptr : &position->second;
  }

  void Set(absl::string_view name, Value value) {
    std::shared_ptr<const Bucket>& bucket = buckets_[Index(name)];
    auto next = bucket == nullptr ? std::make_shared<Bucket>() : std::make_shared<Bucket>(*bucket);
    size_ += next->insert_or_assign(std::string(name), std::move(value)).second;
    bucket = std::move(next);
  }

  /// No effect when the name is not there.
  void Erase(absl::string_view name) {
    if (Find(name) != nullptr) {
      std::shared_ptr<const Bucket>& bucket = buckets_[Index(name)];
      auto next = std::make_shared<Bucket>(*bucket);
      next->erase(name);
      bucket = std::move(next);
      --size_;
    }
  }

  bool empty() const { return size_ == 0; }

  /// Calls visit(name, value) for each entry, in no order.
  template <typename Visitor>
  void ForEach(Visitor visit) const {
    for (const std::shared_ptr<const Bucket>& bucket : buckets_) {
      if (bucket != nullptr) {
        for (const auto& [name, value] : *bucket) {
          visit(name, value);
        }
      }
    }
  }

 private:
  using Bucket = absl::flat_hash_map<std::string, Value>;
  static constexpr size_t kBuckets = 64;

  // The upper half of the hash: the bucket's own table uses the lower bits.
  static size_t Index(absl::string_view name) {
    return (absl::Hash<absl::string_view>()(name) >> 32) % kBuckets;
  }

  std::array<std::shared_ptr<const Bucket>, kBuckets> buckets_;  // null: no entries yet
  size_t size_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_SNAPSHOT_MAP_H_
