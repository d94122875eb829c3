// LowerThreadPriority: for threads that must not stretch the engine's steps.
#ifndef TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_
#define TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_

namespace tenon {

/// Makes the calling thread give way to the others of this machine: a nice value of 10, with which
/// the kernel gives it about a tenth of a CPU that somebody else wants, and all of one that nobody
/// does (setpriority(2), sched(7); on Linux a nice value is a thread's). Never to the idle class,
/// in which a load under full traffic would not end. Does nothing where it is not allowed.
void LowerThreadPriority();

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_THREAD_PRIORITY_H_
