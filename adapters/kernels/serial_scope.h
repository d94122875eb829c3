// SerialScope: work beside the engine that leaves it its threads.
#ifndef TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_
#define TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_

namespace tenon {

/// While it lives, ParallelFor and LibTorch's own loops stay on the thread that made it. Products
/// go through PackedMatrix then, since LibTorch's go to a library with threads of its own. Ends on
/// the same thread.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  const int num_threads_;  // before
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_SERIAL_SCOPE_H_
