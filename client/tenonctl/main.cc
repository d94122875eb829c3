// tenonctl: Tenon from the command line. tenonctl --help
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "client/tenonctl/command.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // `tenonctl ... | head` ends by a failed write instead
  tenon::Console console{std::cin,       std::cout,      std::cerr,
                         isatty(0) != 0, isatty(1) != 0, isatty(2) != 0};
  const auto environment = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  return tenon::RunTenonctl(std::vector<std::string>(argv + 1, argv + argc), environment, console);
}
