#include "tests/server/model/model_folder.h"

#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "nlohmann/json.hpp"

namespace tenon {

ModelFolder::ModelFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "tenon-model-XXXXXX").string();
  path_ = mkdtemp(name.data());
}

ModelFolder::~ModelFolder() { std::filesystem::remove_all(path_); }

void ModelFolder::Write(const std::string& name, absl::string_view text) const {
  std::ofstream(path_ + "/" + name, std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
}

void ModelFolder::WriteSafetensors(const std::string& name, const FloatTensors& tensors,
                                   int padding) const {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [tensor, content] : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(content.values.data()),
                content.values.size() * sizeof(float));
    header[tensor] = {
        {"dtype", "F32"}, {"shape", content.shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8 + static_cast<size_t>(padding), ' ');
  const uint64_t size = text.size();
  std::string file(reinterpret_cast<const char*>(&size), sizeof(size));
  Write(name, file + text + data);
}

FloatTensors SmallWeights() {
  const std::map<std::string, std::vector<int64_t>> shapes = {
      {"model.embed_tokens.weight", {32, 16}},
      {"model.layers.0.input_layernorm.weight", {16}},
      {"model.layers.0.self_attn.q_proj.weight", {16, 16}},
      {"model.layers.0.self_attn.k_proj.weight", {8, 16}},
      {"model.layers.0.self_attn.v_proj.weight", {8, 16}},
      {"model.layers.0.self_attn.o_proj.weight", {16, 16}},
      {"model.layers.0.post_attention_layernorm.weight", {16}},
      {"model.layers.0.mlp.gate_proj.weight", {24, 16}},
      {"model.layers.0.mlp.up_proj.weight", {24, 16}},
      {"model.layers.0.mlp.down_proj.weight", {16, 24}},
      {"model.norm.weight", {16}},
      {"lm_head.weight", {32, 16}},
  };
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 0.3f);
  FloatTensors tensors;
  for (const auto& [name, shape] : shapes) {
    FloatTensor& tensor = tensors[name];
    tensor.shape = shape;
    int64_t count = 1;
    for (const int64_t size : shape) {
      count *= size;
    }
    for (int64_t i = 0; i < count; ++i) {
      tensor.values.push_back(shape.size() == 1 ? 1.0f : normal(random));
    }
  }
  return tensors;
}

}  // namespace tenon
