#include "adapters/s3/s3_listing.h"

#include <pugixml.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// The element `name` at the root. pugixml reads neither DTDs nor external entities.
absl::StatusOr<pugi::xml_node> Root(pugi::xml_document& document, absl::string_view xml,
                                    const char* name) {
  const pugi::xml_parse_result parsed = document.load_buffer(xml.data(), xml.size());
  const pugi::xml_node root = document.child(name);
  if (!parsed || !root) {
    return absl::DataLossError(absl::StrCat("the object store's answer is no ", name));
  }
  return root;
}

}  // namespace

absl::StatusOr<S3ListPage> ParseListPage(absl::string_view xml) {
  pugi::xml_document document;
  TENON_ASSIGN_OR_RETURN(const pugi::xml_node root, Root(document, xml, "ListBucketResult"));
  S3ListPage page;
  for (const pugi::xml_node& node : root.children("Contents")) {
    S3Entry entry;
    entry.key = node.child_value("Key");
    entry.etag = node.child_value("ETag");
    if (entry.key.empty() || !absl::SimpleAtoi(node.child_value("Size"), &entry.num_bytes)) {
      return absl::DataLossError("the object store's listing has an entry without a key or a size");
    }
    page.entries.push_back(std::move(entry));
  }
  if (absl::string_view(root.child_value("IsTruncated")) == "true") {
    page.next = root.child_value("NextContinuationToken");
    if (page.next.empty()) {
      return absl::DataLossError("the object store's listing is cut and does not say where");
    }
  }
  return page;
}

absl::StatusOr<std::string> ParseUploadId(absl::string_view xml) {
  pugi::xml_document document;
  TENON_ASSIGN_OR_RETURN(const pugi::xml_node root,
                         Root(document, xml, "InitiateMultipartUploadResult"));
  std::string id = root.child_value("UploadId");
  if (id.empty()) {
    return absl::DataLossError("the object store began a multipart upload without an id");
  }
  return id;
}

std::string ParseError(absl::string_view xml) {
  pugi::xml_document document;
  const absl::StatusOr<pugi::xml_node> root = Root(document, xml, "Error");
  return root.ok() ? absl::StrCat(root->child_value("Code"), ": ", root->child_value("Message"))
                   : std::string();
}

}  // namespace tenon
