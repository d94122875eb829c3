#include "server/scheduler/prefix_index.h"

#include <openssl/sha.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

BlockKey Sha256(absl::string_view bytes) {
  BlockKey digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

void AppendTagged(absl::string_view part, std::string& out) {
  absl::StrAppend(&out, part.size(), ":", part);
}

}  // namespace

PrefixIndex::PrefixIndex(std::string salt, BlockPool* pool) : salt_(std::move(salt)), pool_(pool) {}

PrefixChain PrefixIndex::Begin(absl::string_view tenant, absl::string_view selection_key) const {
  std::string parts;
  AppendTagged(tenant, parts);
  AppendTagged(salt_, parts);
  AppendTagged(selection_key, parts);
  return PrefixChain{.root = Sha256(parts), .keys = {}};
}

const BlockKey& PrefixIndex::KeyOf(PrefixChain& chain, std::span<const int32_t> tokens,
                                   int64_t index) const {
  const int64_t block_size = pool_->block_size();
  for (int64_t i = static_cast<int64_t>(chain.keys.size()); i <= index; ++i) {
    std::string link = i == 0 ? chain.root : chain.keys[i - 1];
    const std::span<const std::byte> block =
        std::as_bytes(tokens.subspan(i * block_size, block_size));
    link.append(reinterpret_cast<const char*>(block.data()), block.size());
    chain.keys.push_back(Sha256(link));
  }
  return chain.keys[index];
}

void PrefixIndex::Acquire(PrefixChain& chain, std::span<const int32_t> tokens, int64_t max_blocks,
                          std::vector<BlockId>& blocks) {
  for (int64_t i = 0; i < max_blocks; ++i) {
    const std::optional<BlockId> block = pool_->Acquire(KeyOf(chain, tokens, i));
    if (!block.has_value()) {
      return;
    }
    blocks.push_back(*block);
  }
}

void PrefixIndex::Publish(PrefixChain& chain, std::span<const int32_t> tokens,
                          std::span<const BlockId> blocks, int64_t first_block, int64_t end_block) {
  for (int64_t i = first_block; i < end_block; ++i) {
    pool_->Publish(blocks[i], KeyOf(chain, tokens, i));
  }
}

}  // namespace tenon
