// ChildProcess: a program that a test starts, and that does not outlive it.
#ifndef TENON_TESTS_CHILD_PROCESS_H_
#define TENON_TESTS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tenon {

/// Runs `arguments` (the first is the program's path) with its standard output on a pipe; standard
/// error is the test's. Killed by the destructor if it still runs, and by the kernel if the test
/// dies. Not thread-safe.
class ChildProcess {
 public:
  explicit ChildProcess(std::vector<std::string> arguments);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// The next line that it prints, without its end; what there is when it prints no more.
  std::string ReadLine();
  /// All that it prints until it closes its output.
  std::string ReadAll();
  void Signal(int signal) const;
  pid_t pid() const { return pid_; }
  /// The exit code, or minus the signal that ended it. Once.
  int Wait();
  /// VmRSS of a process that runs.
  int64_t ResidentBytes() const;

 private:
  pid_t pid_ = -1;
  int out_ = -1;
};

/// The interpreter with what tests/requirements.txt names.
std::string TestPython();

/// The S3 server that deploy/install_deps.sh --tests builds.
std::string TestS3Server();

}  // namespace tenon

#endif  // TENON_TESTS_CHILD_PROCESS_H_
