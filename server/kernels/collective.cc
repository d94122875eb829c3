// LibTorch's wheel has gloo inside, but not gloo's headers: those are Debian's (libgloo-dev). They
// name types that are used through pointers alone, so that their version need not be the wheel's.
#define USE_C10D_GLOO

#include "server/kernels/collective.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <chrono>
#include <exception>
#include <future>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>

#include "absl/base/attributes.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr char kLoopback[] = "127.0.0.1";
// Of a rank's backend: operations come one at a time.
constexpr int kGlooThreads = 1;

using Backend = c10::intrusive_ptr<c10d::Backend>;

// Of the process: the first operation of a group enters it into c10d's flight recorder, which has a
// lock but does not hold it there. Groups of several ranks in one process meet in it.
ABSL_CONST_INIT absl::Mutex begin_mutex(absl::kConstInit);

c10::intrusive_ptr<c10d::Work> BeginGather(c10d::Backend& backend, at::Tensor& target,
                                           at::Tensor& source) {
  absl::MutexLock lock(&begin_mutex);
  return backend._allgather_base(target, source);
}

// Waits until all ranks of the store have come.
absl::StatusOr<Backend> Connect(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank,
                                int64_t size, absl::Duration timeout) {
  try {
    const std::chrono::milliseconds limit(absl::ToInt64Milliseconds(timeout));
    const auto options = c10d::ProcessGroupGloo::Options::create(limit);
    options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(kLoopback)};
    options->threads = kGlooThreads;
    return Backend(c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank),
                                                               static_cast<int>(size), options));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("tensor-parallel rank ", rank, " of ", size, ": ", error.what()));
  }
}

}  // namespace

Collective::Collective(c10::intrusive_ptr<c10d::Backend> backend, int64_t rank, int64_t size)
    : backend_(std::move(backend)), rank_(rank), size_(size) {}

Collective::~Collective() = default;

absl::StatusOr<std::vector<std::unique_ptr<Collective>>> Collective::ConnectGloo(
    int64_t size, absl::Duration timeout) {
  const c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
  store->setTimeout(std::chrono::milliseconds(absl::ToInt64Milliseconds(timeout)));
  std::vector<std::future<absl::StatusOr<Backend>>> connecting;
  for (int64_t rank = 0; rank < size; ++rank) {
    connecting.push_back(
        std::async(std::launch::async, [&, rank] { return Connect(store, rank, size, timeout); }));
  }
  absl::Status status;
  std::vector<std::unique_ptr<Collective>> ranks;
  for (int64_t rank = 0; rank < size; ++rank) {
    absl::StatusOr<Backend> backend = connecting[static_cast<size_t>(rank)].get();
    status.Update(backend.status());
    if (backend.ok()) {
      ranks.emplace_back(new Collective(*std::move(backend), rank, size));
    }
  }
  TENON_RETURN_IF_ERROR(status);
  return ranks;
}

at::Tensor Collective::Gather(const at::Tensor& tensor) {
  TORCH_CHECK(backend_ != nullptr, "tensor-parallel rank ", rank_, " of ", size_,
              " has left the group");
  TORCH_CHECK(tensor.is_contiguous(), "a collective's tensor is not contiguous");
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape.insert(shape.begin(), size_);
  const at::Tensor gathered = at::empty(shape, tensor.options());
  if (tensor.numel() == 0) {
    return gathered;
  }
  at::Tensor source = tensor.view(-1).view(at::kByte);
  at::Tensor target = gathered.view(-1).view(at::kByte);
  try {
    BeginGather(*backend_, target, source)->wait();
  } catch (const std::exception&) {
    broken_ = true;
    throw;
  }
  return gathered;
}

void Collective::AllReduce(const at::Tensor& y) {
  const at::Tensor parts = Gather(y);
  const at::Tensor sum = parts.select(0, 0).to(at::kFloat);
  for (int64_t rank = 1; rank < size_; ++rank) {
    sum.add_(parts.select(0, rank));
  }
  y.copy_(sum);
}

at::Tensor Collective::GatherColumns(const at::Tensor& columns) {
  return Gather(columns).transpose(0, 1).reshape({columns.size(0), size_ * columns.size(1)});
}

void Collective::Close() { backend_.reset(); }

}  // namespace tenon
