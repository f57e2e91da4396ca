#include "export/onnx_file.h"

#include "core/error.h"

namespace lathe {
namespace {

// Field numbers of onnx.proto.
namespace field {
namespace model {
constexpr int ir_version = 1, producer = 2, domain = 4, graph = 7, opset = 8;
}
namespace opset {
constexpr int domain = 1, version = 2;
}
namespace graph {
constexpr int node = 1, name = 2, tensor = 5, input = 11, output = 12;
}
namespace node {
constexpr int input = 1, output = 2, name = 3, op = 4, attribute = 5, domain = 7;
}
namespace attribute {
constexpr int name = 1, real = 2, integer = 3, text = 4, integers = 8, type = 20;
constexpr int is_real = 1, is_integer = 2, is_text = 3, are_integers = 7;
}  // namespace attribute
namespace tensor {
constexpr int dim = 1, type = 2, name = 8, raw = 9, external = 13, location = 14;
constexpr int is_external = 1;
}  // namespace tensor
namespace entry {
constexpr int key = 1, value = 2;
}
namespace value {
constexpr int name = 1, type = 2, tensor = 1, element = 1, shape = 2, dim = 1, number = 1, param = 2;
}
}  // namespace field

// Readers map the file: tensors begin on pages, as the specification advises.
constexpr size_t page = 4096, small = 1024;

size_t bytes_of(OnnxType type) {
  switch (type) {
    case OnnxType::u8:
    case OnnxType::i8:
    case OnnxType::boolean:
      return 1;
    case OnnxType::f16:
    case OnnxType::bf16:
      return 2;
    case OnnxType::f32:
      return 4;
    case OnnxType::i64:
      return 8;
  }
  fail("ONNX type {}", static_cast<int>(type));
}

ProtoMessage proto(const OnnxAttribute& attribute) {
  namespace f = field::attribute;
  ProtoMessage out;
  out.text(f::name, attribute.name);
  if (const auto* i = std::get_if<int64_t>(&attribute.value)) {
    out.integer(f::integer, *i).integer(f::type, f::is_integer);
  } else if (const auto* r = std::get_if<float>(&attribute.value)) {
    out.real(f::real, *r).integer(f::type, f::is_real);
  } else if (const auto* t = std::get_if<std::string>(&attribute.value)) {
    out.text(f::text, *t).integer(f::type, f::is_text);
  } else {
    for (const int64_t each : std::get<std::vector<int64_t>>(attribute.value)) out.integer(f::integers, each);
    out.integer(f::type, f::are_integers);
  }
  return out;
}

ProtoMessage value_info(const std::string& name, OnnxType type, const std::vector<OnnxDim>& dims) {
  namespace f = field::value;
  ProtoMessage shape;
  for (const OnnxDim& each : dims) {
    ProtoMessage dim;
    if (const auto* number = std::get_if<int64_t>(&each))
      dim.integer(f::number, *number);
    else
      dim.text(f::param, std::get<std::string>(each));
    shape.message(f::dim, dim);
  }
  ProtoMessage tensor, any;
  tensor.integer(f::element, static_cast<int>(type)).message(f::shape, shape);
  any.message(f::tensor, tensor);
  return ProtoMessage().text(f::name, name).message(f::type, any);
}

ProtoMessage tensor_head(const std::string& name, OnnxType type, const Shape& shape) {
  ProtoMessage out;
  for (const int64_t n : shape) out.integer(field::tensor::dim, n);
  return out.integer(field::tensor::type, static_cast<int>(type)).text(field::tensor::name, name);
}

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

OnnxType onnx_type(DType type) {
  switch (type) {
    case DType::f32:
      return OnnxType::f32;
    case DType::f16:
      return OnnxType::f16;
    case DType::bf16:
      return OnnxType::bf16;
    case DType::i8:
      return OnnxType::i8;
    case DType::u8:
      return OnnxType::u8;
    case DType::i64:
      return OnnxType::i64;
    default:
      fail("{} in an ONNX file", dtype_name(type));
  }
}

OnnxFile::OnnxFile(const fs::path& directory)
    : directory_(directory), data_(directory / std::string(data_name)) {}

std::string OnnxFile::unique(std::string_view op) {
  std::string out = scope_.empty() ? std::string(op) : fmt::format("{}/{}", scope_, op);
  if (const int uses = ++uses_[out]; uses > 1) out += fmt::format(".{}", uses);
  return out;
}

std::string OnnxFile::add(const OnnxNode& node) {
  const std::string node_name = unique(node.op);
  std::string output = node.output.empty() ? node_name : node.output;
  write_node(node_name, node, {output});
  return output;
}

std::pair<std::string, std::string> OnnxFile::add_pair(const OnnxNode& node) {
  std::string first = unique(node.op), second = first + ".second";
  write_node(first, node, {first, second});
  return {std::move(first), std::move(second)};
}

void OnnxFile::write_node(const std::string& node_name, const OnnxNode& node,
                          std::initializer_list<std::string_view> outputs) {
  namespace f = field::node;
  ProtoMessage out;
  for (const std::string& input : node.inputs) out.text(f::input, input);
  for (const std::string_view output : outputs) out.text(f::output, output);
  out.text(f::name, node_name).text(f::op, node.op);
  for (const OnnxAttribute& attribute : node.attributes) out.message(f::attribute, proto(attribute));
  if (!node.domain.empty()) out.text(f::domain, node.domain);
  contrib_ = contrib_ || !node.domain.empty();
  nodes_.message(field::graph::node, out);
}

std::string OnnxFile::constant(OnnxType type, const Shape& shape, std::span<const std::byte> bytes) {
  const std::string key = fmt::format("{} {} {}", static_cast<int>(type), to_string(shape), as_text(bytes));
  const auto [found, added] = constants_.try_emplace(key, fmt::format("constant.{}", constants_.size()));
  if (added) tensor(found->second, type, shape, bytes);
  return found->second;
}

std::string OnnxFile::numbers(const std::vector<int64_t>& values) {
  return constant(OnnxType::i64, {std::ssize(values)}, std::as_bytes(std::span(values)));
}

std::string OnnxFile::number(int64_t value) {
  return constant(OnnxType::i64, {}, std::as_bytes(std::span(&value, 1)));
}

std::string OnnxFile::number(float value) {
  return constant(OnnxType::f32, {}, std::as_bytes(std::span(&value, 1)));
}

std::string OnnxFile::reals(std::span<const float> values, const Shape& shape) {
  return constant(OnnxType::f32, shape, std::as_bytes(values));
}

void OnnxFile::begin_tensor(const std::string& tensor_name, OnnxType type, const Shape& shape) {
  end_tensor();
  constexpr char zeros[page] = {};
  const size_t padding = (page - data_bytes_ % page) % page;
  data_.write(zeros, padding);
  data_bytes_ += padding;
  const size_t bytes = static_cast<size_t>(elements(shape)) * bytes_of(type);
  const std::pair<std::string_view, std::string> where[] = {{"location", std::string(data_name)},
                                                            {"offset", std::to_string(data_bytes_)},
                                                            {"length", std::to_string(bytes)}};
  ProtoMessage head = tensor_head(tensor_name, type, shape);
  for (const auto& [key, value] : where)
    head.message(field::tensor::external,
                 ProtoMessage().text(field::entry::key, key).text(field::entry::value, value));
  head.integer(field::tensor::location, field::tensor::is_external);
  tensors_.message(field::graph::tensor, head);
  wanted_ = data_bytes_ + bytes;
}

void OnnxFile::append(std::span<const std::byte> bytes) {
  data_.write(bytes.data(), bytes.size());
  data_bytes_ += bytes.size();
}

void OnnxFile::end_tensor() {
  if (wanted_ != 0 && data_bytes_ != wanted_) fail("ONNX tensor ends at {}, not {}", data_bytes_, wanted_);
}

void OnnxFile::tensor(const std::string& tensor_name, OnnxType type, const Shape& shape,
                      std::span<const std::byte> bytes) {
  if (bytes.size() != static_cast<size_t>(elements(shape)) * bytes_of(type))
    fail("ONNX tensor '{}' of {} has {} bytes", tensor_name, to_string(shape), bytes.size());
  if (bytes.size() <= small) {
    tensors_.message(field::graph::tensor,
                     tensor_head(tensor_name, type, shape).text(field::tensor::raw, as_text(bytes)));
    return;
  }
  begin_tensor(tensor_name, type, shape);
  append(bytes);
}

void OnnxFile::input(const std::string& value_name, OnnxType type, const std::vector<OnnxDim>& dims) {
  inputs_.message(field::graph::input, value_info(value_name, type, dims));
}

void OnnxFile::output(const std::string& value_name, OnnxType type, const std::vector<OnnxDim>& dims) {
  outputs_.message(field::graph::output, value_info(value_name, type, dims));
}

size_t OnnxFile::finish(std::string_view graph_name, std::string_view domain) {
  end_tensor();
  data_.finish();
  namespace f = field::model;
  ProtoMessage model;
  model.integer(f::ir_version, ir_version).text(f::producer, "lathe").text(f::domain, domain);
  const auto opset_of = [&](std::string_view of, int64_t version) {
    model.message(f::opset,
                  ProtoMessage().text(field::opset::domain, of).integer(field::opset::version, version));
  };
  opset_of("", opset);
  if (contrib_) opset_of("com.microsoft", 1);
  const std::string graph = nodes_.bytes() + ProtoMessage().text(field::graph::name, graph_name).bytes() +
                            tensors_.bytes() + inputs_.bytes() + outputs_.bytes();
  // Protocol buffers end at 2 GiB; graphs do not come near it, since tensors lie outside.
  if (graph.size() > size_t{1} << 30) fail("an ONNX graph of {} bytes", graph.size());
  model.text(f::graph, graph);
  FileWriter out(directory_ / std::string(name));
  out.write(model.bytes());
  out.finish();
  return data_bytes_ + model.bytes().size();
}

}  // namespace lathe
