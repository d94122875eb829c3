// SerialScope: work beside the engine that leaves it its threads.
#ifndef TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_
#define TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_

namespace tenon {

/// While it lives, LibTorch's own loops stay on the thread that made it: it has threads of its own,
/// which would get in the way of the kernels'. Ends on the same thread. Cheap.
class LibTorchSerialScope {
 public:
  LibTorchSerialScope();
  ~LibTorchSerialScope();
  LibTorchSerialScope(const LibTorchSerialScope&) = delete;
  LibTorchSerialScope& operator=(const LibTorchSerialScope&) = delete;

 private:
  const int num_threads_;  // before
};

/// While it lives, ParallelFor stays on the thread that made it as well. Products go through
/// PackedMatrix then, since LibTorch's go to a library with threads of its own. Ends on the same
/// thread.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

  /// Whether one lives on the calling thread.
  static bool IsActive();

 private:
  const LibTorchSerialScope libtorch_;
  const bool was_active_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_
