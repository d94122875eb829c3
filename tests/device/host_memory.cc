#include "tests/device/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace tenon {
namespace {

constexpr size_t kAlignment = 512;

char* Map(int file, size_t bytes, int protection) {
  void* const memory = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap of the host device's memory");
    std::abort();
  }
  return static_cast<char*>(memory);
}

}  // namespace

HostMemory& HostMemory::Get() {
  static HostMemory* const memory = new HostMemory;
  return *memory;
}

HostMemory::HostMemory() {
  const int file = memfd_create("tenon_host_device", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(kBytes)) != 0) {
    std::perror("memory file of the host device");
    std::abort();
  }
  device_ = Map(file, kBytes, PROT_NONE);
  shadow_ = Map(file, kBytes, PROT_READ | PROT_WRITE);
  close(file);
}

void* HostMemory::Allocate(size_t bytes) {
  const size_t size = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  size_t offset = high_water_;
  // A piece that was freed is used again when it is at most twice as large as what is wanted.
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= 2 * size) {
    offset = found->second;
    used_[offset] = found->first;
    free_.erase(found);
  } else if (high_water_ + size <= kBytes) {
    used_[offset] = size;
    high_water_ += size;
  } else {
    throw std::bad_alloc();
  }
  std::memset(shadow_ + offset, 0xFF, size);
  return device_ + offset;
}

void HostMemory::Free(void* device_address) {
  const auto found = used_.find(static_cast<size_t>(static_cast<char*>(device_address) - device_));
  free_.emplace(found->second, found->first);
  used_.erase(found);
}

void HostMemory::SetAccessible(bool accessible) {
  if (high_water_ > 0 &&
      mprotect(device_, high_water_, accessible ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
    std::perror("mprotect of the host device's memory");
    std::abort();
  }
}

}  // namespace tenon
