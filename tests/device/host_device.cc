#include "tests/device/host_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "tests/device/host_cuda.h"
#include "tests/device/host_memory.h"

namespace tenon {
namespace {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;

struct HostGuard final : public c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return {kType, 0}; }
  c10::Device getDevice() const override { return {kType, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kType, 0));
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getStream(device);
  }
  void* getStreamNativeHandle(const c10::Stream) const override { return nullptr; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, HostGuard);

class HostAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const memory = HostMemory::Get().Allocate(bytes);
    return {memory, memory, &Free, c10::Device(kType, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(HostMemory::Get().Shadow(to), HostMemory::Get().Shadow(from), bytes);
  }

 private:
  static void Free(void* memory) { HostMemory::Get().Free(memory); }
};

HostAllocator& Allocator() {
  static HostAllocator allocator;
  return allocator;
}

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

bool IsOurs(const at::Tensor& tensor) { return tensor.device().type() == kType; }

// The same elements as a tensor of the CPU, in the shadow; keeps `tensor` alive. One without
// elements is a tensor of its own, which operations may resize.
at::Tensor OnCpu(const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    return at::empty_strided(tensor.sizes(), tensor.strides(),
                             at::TensorOptions(tensor.scalar_type()));
  }
  return at::from_blob(
      HostMemory::Get().Shadow(tensor.data_ptr()), tensor.sizes(), tensor.strides(),
      [tensor](void*) {}, at::TensorOptions(tensor.scalar_type()));
}

// A result of an operation on the CPU as a tensor of the device: a view of `base` where the result
// is one, else a copy.
at::Tensor OnDevice(const at::Tensor& result, const at::Tensor& base) {
  void* const device_address = HostMemory::Get().DeviceAddress(result.data_ptr());
  if (result.numel() == 0 || device_address == nullptr) {
    const at::Tensor moved = at::detail::empty_strided_generic(
        result.sizes(), result.strides(), &Allocator(), kKeys, result.scalar_type());
    OnCpu(moved).copy_(result);
    return moved;
  }
  auto* const kept = new at::Tensor(result);
  c10::DataPtr pointer(
      device_address, kept, [](void* tensor) { delete static_cast<at::Tensor*>(tensor); },
      c10::Device(kType, 0));
  c10::Storage storage(
      c10::Storage::use_byte_size_t(),
      at::detail::computeStorageNbytes(result.sizes(), result.strides(), result.element_size()),
      std::move(pointer), nullptr, /*resizable=*/false);
  at::Tensor view = at::detail::make_tensor<c10::TensorImpl>(
      c10::TensorImpl::VIEW, std::move(storage), base.key_set(), result.dtype());
  view.unsafeGetTensorImpl()->set_sizes_and_strides(result.sizes(), result.strides());
  return view;
}

// One argument of an operation, with the device's tensors replaced by their shadows.
class ArgumentMover {
 public:
  explicit ArgumentMover(const c10::OperatorHandle& op) : op_(op) {}

  c10::IValue Move(const c10::IValue& value) const {
    if (value.isTensor()) {
      return value.toTensor().defined() ? MoveTensor(value.toTensor()) : value;
    }
    if (value.isTensorList()) {
      std::vector<at::Tensor> moved;
      for (const at::Tensor& tensor : value.toTensorVector()) {
        moved.push_back(MoveTensor(tensor));
      }
      return moved;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> moved;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorList()) {
        moved.push_back(tensor.has_value() && tensor->defined() ? MoveTensor(*tensor) : tensor);
      }
      return moved;
    }
    return value.isDevice() ? c10::IValue(c10::Device(c10::kCPU)) : value;
  }

 private:
  at::Tensor MoveTensor(const at::Tensor& tensor) const {
    if (IsOurs(tensor)) {
      return OnCpu(tensor);
    }
    TORCH_CHECK(tensor.dim() == 0, op_.schema().operator_name(), ": a tensor ", tensor.sizes(),
                " of device ", tensor.device(), " among those of another");
    return tensor;
  }

  const c10::OperatorHandle& op_;
};

// The argument that a result is, for operations that change one in place, or nothing.
std::optional<size_t> WrittenArgument(const c10::FunctionSchema& schema, size_t result) {
  const c10::AliasInfo* const returned = schema.returns()[result].alias_info();
  if (returned == nullptr || !returned->isWrite()) {
    return std::nullopt;
  }
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const c10::AliasInfo* const info = schema.arguments()[i].alias_info();
    if (info != nullptr && info->isWrite() && info->beforeSets() == returned->beforeSets()) {
      return i;
    }
  }
  return std::nullopt;
}

c10::IValue Wrap(const c10::IValue& value, const at::Tensor& base) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? OnDevice(value.toTensor(), base) : value;
  }
  if (value.isTensorList()) {
    std::vector<at::Tensor> moved;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      moved.push_back(OnDevice(tensor, base));
    }
    return moved;
  }
  return value;
}

// What views are of: operations that make them have one tensor in front.
at::Tensor BaseOf(const std::vector<c10::IValue>& arguments) {
  for (const c10::IValue& value : arguments) {
    if (value.isTensor() && value.toTensor().defined()) {
      return value.toTensor();
    }
  }
  return {};
}

// An output argument that was empty and has been resized takes the elements over.
c10::IValue Written(const c10::IValue& given, const at::Tensor& result) {
  const at::Tensor& output = given.toTensor();
  if (output.sizes() != result.sizes()) {
    const at::Tensor moved = OnDevice(result, output);
    output.unsafeGetTensorImpl()->set_storage_keep_dtype(moved.storage());
    output.unsafeGetTensorImpl()->set_sizes_and_strides(moved.sizes(), moved.strides());
  }
  return given;
}

void RunOnCpu(const c10::OperatorHandle& op, torch::jit::Stack* stack);

// While a graph is captured nothing is computed, so that no result can be made that is not there.
void RefuseInCapture(const std::string& what) {
  TORCH_CHECK(!host_cuda::IsCapturing(), what, " while a graph is captured");
}

// Puts an operation of the given arguments into the graph that is captured, and their results on
// the stack; false when it does not touch elements, as views do not.
bool Record(const c10::OperatorHandle& op, const std::vector<c10::IValue>& given,
            torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  std::vector<c10::IValue> results;
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    const std::optional<size_t> written = WrittenArgument(schema, i);
    if (!written.has_value()) {
      if (schema.returns()[i].alias_info() == nullptr) {
        RefuseInCapture(c10::toString(schema.operator_name()) + " makes a tensor");
      }
      return false;
    }
    results.push_back(given[*written]);
  }
  host_cuda::RunOrRecord([op, given] {
    torch::jit::Stack again(given.begin(), given.end());
    RunOnCpu(op, &again);
  });
  stack->insert(stack->end(), results.begin(), results.end());
  return true;
}

// Every operation without a kernel of its own: the CPU's, on the shadows.
void RunOnCpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const size_t count = schema.arguments().size();
  const std::vector<c10::IValue> given = torch::jit::last(*stack, count).vec();
  torch::jit::drop(*stack, count);
  if (host_cuda::IsCapturing() && Record(op, given, stack)) {
    return;
  }
  const ArgumentMover mover(op);
  for (const c10::IValue& value : given) {
    stack->push_back(mover.Move(value));
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const size_t results = schema.returns().size();
  const std::vector<c10::IValue> returned = torch::jit::last(*stack, results).vec();
  torch::jit::drop(*stack, results);
  for (size_t i = 0; i < results; ++i) {
    const std::optional<size_t> written = WrittenArgument(schema, i);
    stack->push_back(written.has_value() ? Written(given[*written], returned[i].toTensor())
                                         : Wrap(returned[i], BaseOf(given)));
  }
}

at::Tensor EmptyMemoryFormat(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                             std::optional<at::Layout>, std::optional<at::Device>,
                             std::optional<bool>, std::optional<at::MemoryFormat> format) {
  RefuseInCapture("a tensor is made");
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &Allocator(), kKeys,
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor EmptyStrided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                        std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                        std::optional<at::Device>, std::optional<bool>) {
  RefuseInCapture("a tensor is made");
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size),
                                           C10_AS_INTARRAYREF_SLOW(stride), &Allocator(), kKeys,
                                           dtype.value_or(at::kFloat));
}

at::Tensor CopyFrom(const at::Tensor& from, const at::Tensor& to, bool) {
  if (!IsOurs(from) || !IsOurs(to)) {
    RefuseInCapture("a copy between devices");
  }
  host_cuda::RunOrRecord([from, to] {
    const at::Tensor target = IsOurs(to) ? OnCpu(to) : to;
    target.copy_(IsOurs(from) ? OnCpu(from) : from);
  });
  return to;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&RunOnCpu>());
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &EmptyMemoryFormat);
  m.impl("empty_strided", &EmptyStrided);
  m.impl("_copy_from", &CopyFrom);
}

}  // namespace

c10::Device HostDevice() { return {kType, 0}; }

HostDeviceAccess::HostDeviceAccess() { HostMemory::Get().SetAccessible(true); }
HostDeviceAccess::~HostDeviceAccess() { HostMemory::Get().SetAccessible(false); }

}  // namespace tenon
