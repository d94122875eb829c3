#include "tests/integration/certificates.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_process.h"

namespace tenon {

void CertificateFolder::OpenSsl(const std::string& arguments) const {
  const std::string command =
      absl::StrCat("cd ", path_, " && openssl ", arguments, " 2>openssl.log");
  ASSERT_EQ(std::system(command.c_str()), 0) << command << "\n" << ReadFile(Path("openssl.log"));
}

void CertificateFolder::MakeAuthority(const std::string& name) const {
  OpenSsl(
      absl::StrCat("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
                   "/CN=",
                   name, " -keyout ", name, ".key -out ", name, ".pem"));
}

void CertificateFolder::MakeCertificate(const std::string& name, const std::string& authority,
                                        const std::string& alternative) const {
  std::ofstream(Path(name + ".ext")) << "subjectAltName=" << alternative << "\n";
  OpenSsl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name,
                       " -keyout ", name, ".key -out ", name, ".csr"));
  OpenSsl(absl::StrCat("x509 -req -days 2 -in ", name, ".csr -CA ", authority, ".pem -CAkey ",
                       authority, ".key -CAcreateserial -extfile ", name, ".ext -out ", name,
                       ".pem"));
}

void CertificateFolder::Install(const std::string& name, const std::string& place) const {
  for (const char* suffix : {".key", ".pem"}) {
    const std::string temporary = Path(absl::StrCat("installing", suffix));
    std::filesystem::copy_file(Path(name + suffix), temporary);
    std::filesystem::rename(temporary, Path(absl::StrCat(place, suffix)));
  }
}

}  // namespace tenon
