// CertificateFolder: authorities and certificates that openssl(1) makes for a test.
#ifndef TENON_TESTS_INTEGRATION_CERTIFICATES_H_
#define TENON_TESTS_INTEGRATION_CERTIFICATES_H_

#include <string>
#include <utility>

namespace tenon {

/// NAME.pem and NAME.key of each in one folder. Failures are the test's.
class CertificateFolder {
 public:
  explicit CertificateFolder(std::string path) : path_(std::move(path)) {}

  std::string Path(const std::string& name) const { return path_ + "/" + name; }

  void MakeAuthority(const std::string& name) const;
  /// Signed by `authority`, for an alternative name such as "IP:127.0.0.1".
  void MakeCertificate(const std::string& name, const std::string& authority,
                       const std::string& alternative) const;
  /// Puts a pair in the place that a server reads, PLACE.pem and PLACE.key, by rename.
  void Install(const std::string& name, const std::string& place) const;

 private:
  void OpenSsl(const std::string& arguments) const;

  const std::string path_;
};

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_CERTIFICATES_H_
