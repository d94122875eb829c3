// AdapterLimits: what an upload may ask for.
#ifndef TENON_ADAPTERS_FORMATS_ADAPTER_LIMITS_H_
#define TENON_ADAPTERS_FORMATS_ADAPTER_LIMITS_H_

#include <cstdint>

namespace tenon {

struct AdapterLimits {
  int64_t max_upload_bytes = int64_t{1} << 30;  ///< all files of one upload
  int64_t max_header_bytes = int64_t{8} << 20;  ///< safetensors header
  int64_t max_config_bytes = int64_t{1} << 20;  ///< adapter_config.json
  int64_t max_tensors = 20'000;
  int64_t max_rank = 256;
  int64_t max_virtual_tokens = 1024;
  int64_t max_bottleneck_width = 4096;
  int64_t max_token_rows = 16'384;                 ///< replaced rows of one matrix
  int64_t max_override_bytes = int64_t{64} << 20;  ///< saved modules and token rows together
  int64_t max_adapters_per_tenant = 10'000;        ///< live versions
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_ADAPTER_LIMITS_H_
