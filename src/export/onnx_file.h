// An ONNX model as it is written: nodes, small tensors inside, large ones in a file beside it. Knows the file
// format and no model. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"
#include "export/onnx_proto.h"

namespace lathe {

// TensorProto.DataType
enum class OnnxType : int { f32 = 1, u8 = 2, i8 = 3, i64 = 7, boolean = 9, f16 = 10, bf16 = 16 };
OnnxType onnx_type(DType);  // Error where ONNX has none that is used here

struct OnnxAttribute {
  std::string_view name;
  std::variant<int64_t, float, std::string, std::vector<int64_t>> value;
};

struct OnnxNode {
  std::string_view op;
  std::vector<std::string> inputs;  // "": an optional one that is absent
  std::vector<OnnxAttribute> attributes = {};
  std::string output = "";  // its name; empty: made of the scope and the op
  std::string_view domain = "";
};

// A dimension: a number, or the name of one that each call brings along.
using OnnxDim = std::variant<int64_t, std::string>;

class OnnxFile {
 public:
  static constexpr int64_t opset = 21, ir_version = 10;
  static constexpr std::string_view name = "model.onnx", data_name = "model.onnx.data";

  explicit OnnxFile(const fs::path& directory);

  // Names of what follows begin with this: the module that it belongs to.
  void scope(std::string_view path) { scope_ = path; }
  std::string add(const OnnxNode&);                               // returns the name of its one output
  std::pair<std::string, std::string> add_pair(const OnnxNode&);  // of two
  std::string add(std::string_view op, std::vector<std::string> inputs) {
    return add(OnnxNode{.op = op, .inputs = std::move(inputs)});
  }

  // Constants, once each however often they are asked for.
  std::string numbers(const std::vector<int64_t>&);  // [n]
  std::string number(int64_t);                       // a scalar
  std::string number(float);
  std::string reals(std::span<const float>, const Shape&);

  // A tensor whose bytes follow, in as many pieces as one likes.
  void begin_tensor(const std::string& tensor_name, OnnxType, const Shape&);
  void append(std::span<const std::byte>);
  void tensor(const std::string& tensor_name, OnnxType, const Shape&, std::span<const std::byte>);

  void input(const std::string& value_name, OnnxType, const std::vector<OnnxDim>&);
  void output(const std::string& value_name, OnnxType, const std::vector<OnnxDim>&);

  size_t finish(std::string_view graph_name, std::string_view domain);  // returns the bytes of both files

 private:
  std::string unique(std::string_view op);
  void write_node(const std::string& node_name, const OnnxNode&,
                  std::initializer_list<std::string_view> outputs);
  std::string constant(OnnxType, const Shape&, std::span<const std::byte>);
  void end_tensor();

  fs::path directory_;
  FileWriter data_;
  size_t data_bytes_ = 0, wanted_ = 0;
  std::string scope_;
  std::map<std::string, int, std::less<>> uses_;
  std::map<std::string, std::string, std::less<>> constants_;  // by type, shape and bytes
  // Sections of GraphProto, each a run of one repeated field.
  ProtoMessage nodes_, tensors_, inputs_, outputs_;
  bool contrib_ = false;  // some op is not of ONNX itself
};

}  // namespace lathe
