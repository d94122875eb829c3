#include "adapters/base/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace tenon {
namespace {

// Examples of FIPS 180-4 (NIST "SHA256.pdf" and "SHA2_Additional.pdf").
TEST(Sha256Test, GivesTheStandardsExamples) {
  Sha256 abc;
  abc.Update("abc");
  EXPECT_EQ(abc.HexDigest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().HexDigest(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256Test, PiecesGiveTheDigestOfTheWhole) {
  const std::string text(1000, 'a');
  Sha256 whole, pieces;
  whole.Update(text);
  for (size_t begin = 0; begin < text.size(); begin += 7) {
    pieces.Update(absl::string_view(text).substr(begin, 7));
  }
  EXPECT_EQ(pieces.HexDigest(), whole.HexDigest());
}

}  // namespace
}  // namespace tenon
