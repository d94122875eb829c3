#include "tests/child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

// Everything after fork is async-signal-safe.
[[noreturn]] void Exec(const std::vector<char*>& args, int out) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that crashes leaves nothing behind
  dup2(out, STDOUT_FILENO);
  execv(args[0], args.data());
  _exit(127);
}

// Where deploy/install_deps.sh puts what it makes.
std::string CacheFolder() {
  const char* cache = getenv("TENON_CACHE_DIR");
  const char* home = getenv("HOME");
  return cache != nullptr ? cache : absl::StrCat(home == nullptr ? "" : home, "/.cache/tenon");
}

}  // namespace

ChildProcess::ChildProcess(std::vector<std::string> arguments) {
  std::vector<char*> pointers;
  for (std::string& argument : arguments) {
    pointers.push_back(argument.data());
  }
  pointers.push_back(nullptr);
  int out[2];
  EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
  pid_ = fork();
  if (pid_ == 0) {
    Exec(pointers, out[1]);
  }
  close(out[1]);
  out_ = out[0];
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) {
    Signal(SIGKILL);
    Wait();
  }
  close(out_);
}

std::string ChildProcess::ReadLine() {
  std::string line;
  char c = 0;
  while (read(out_, &c, 1) == 1 && c != '\n') {
    line.push_back(c);
  }
  return line;
}

std::string ChildProcess::ReadAll() {
  std::string text;
  char buffer[4096];
  ssize_t size = 0;
  while ((size = read(out_, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(size));
  }
  return text;
}

void ChildProcess::Signal(int signal) const { kill(pid_, signal); }

int ChildProcess::Wait() {
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int64_t ChildProcess::ResidentBytes() const {
  std::ifstream statm(absl::StrCat("/proc/", pid_, "/statm"));
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::string TestPython() { return absl::StrCat(CacheFolder(), "/venv-tests/bin/python"); }

std::string TestS3Server() { return absl::StrCat(CacheFolder(), "/versitygw-1.8.0/versitygw"); }

}  // namespace tenon
