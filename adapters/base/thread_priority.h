// LowerThreadPriority: for threads that must not stretch the engine's steps.
#ifndef TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_
#define TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_

namespace tenon {

/// Makes the calling thread give way to the others of its process: five nice levels below its own,
/// with which the kernel gives it about a quarter of a CPU that another thread wants, and all of
/// one that nobody does (setpriority(2), sched(7); on Linux a nice value is a thread's). Lower
/// still, a load under full traffic would take many steps' time.
void LowerThreadPriority();

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_
