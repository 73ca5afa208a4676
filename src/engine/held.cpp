#include "engine/held.h"

#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

// Of experts that lie in another order than their numbers say, each is a box of its own.
static std::vector<Box> by_number(const std::vector<Box>& boxes, const std::string& order_text) {
  const std::vector<std::string> order = split(order_text, ' ');
  std::vector<Box> out;
  for (const Box& box : boxes)
    for (std::int64_t p = box[0].first; p < box[0].second; ++p) {
      const std::int64_t expert = std::stoll(order.at(static_cast<std::size_t>(p)));
      out.push_back(box);
      out.back()[0] = {expert, expert + 1};
    }
  return out;
}

std::vector<Box> held_boxes(const Graph& graph, Value v, std::int64_t rank) {
  const Type& type = graph.type(v);
  const Box box = local_box(type.shape, type.placement, graph.mesh, rank);
  std::vector<Box> boxes;
  if (!type.placement.flat.empty()) {
    const auto [begin, end] = local_flat(type.shape, type.placement, graph.mesh, rank);
    boxes = boxes_of_flat(box, begin, end);
  } else if (num_elements(box) > 0) {
    boxes = {box};
  }
  const ValueInfo& master = graph[v].attrs.has("of") ? graph[graph.find(graph[v].attrs.text("of"))] : graph[v];
  return master.attrs.has("order") ? by_number(boxes, master.attrs.text("order")) : boxes;
}

bool is_first_holder(const Graph& graph, Value v, std::int64_t rank) {
  const std::uint32_t cut = graph.type(v).placement.cut();
  for (std::size_t a = 0; a < graph.mesh.atoms.size(); ++a)
    if (!(cut >> a & 1) && graph.mesh.coordinate(rank, static_cast<Atom>(a)) != 0) return false;
  return true;
}

void for_each_run(const Shape& shape, const Box& box,
                  const std::function<void(std::int64_t first, std::int64_t at, std::int64_t count)>& run) {
  if (num_elements(box) == 0) return;
  // Dims behind `inner` are taken whole: a run is their product times what is taken of `inner`.
  std::size_t inner = box.size();
  std::int64_t count = 1;
  while (inner > 0) {
    --inner;
    count *= box[inner].second - box[inner].first;
    if (box[inner].first != 0 || box[inner].second != shape[inner]) break;
  }
  std::vector<std::int64_t> index;
  for (const auto& range : box) index.push_back(range.first);
  for (std::int64_t at = 0;; at += count) {
    std::int64_t first = 0;
    for (std::size_t d = 0; d < box.size(); ++d) first = first * shape[d] + index[d];
    run(first, at, count);
    std::size_t d = inner;
    while (d > 0 && ++index[d - 1] == box[d - 1].second) --d, index[d] = box[d].first;
    if (d == 0) return;
  }
}

// The value in bf16 that is the other half of a split master; absent for all else.
static Value high_half(const Graph& graph, Value v) {
  return graph[v].attrs.has("high") ? graph.find(graph[v].attrs.text("high")) : Value();
}

Type logical_type(const Graph& graph, Value v) {
  Type type = graph.type(v);
  if (high_half(graph, v)) type.dtype = DType::fp32;
  return type;
}

std::int64_t logical_bytes(const Executor& executor, Value v) {
  const Graph& graph = executor.graph();
  return executor.local_bytes(v) / size_bytes(graph.type(v).dtype) * size_bytes(logical_type(graph, v).dtype);
}

void read_logical(const Executor& executor, Value v, void* to) {
  const Value high = high_half(executor.graph(), v);
  if (!high) return executor.read(v, to, executor.local_bytes(v));
  std::vector<std::int16_t> lows(static_cast<std::size_t>(executor.local_bytes(v)) / sizeof(std::int16_t));
  std::vector<std::uint16_t> highs(lows.size());
  executor.read(v, lows.data(), executor.local_bytes(v));
  executor.read(high, highs.data(), executor.local_bytes(high));
  auto* numbers = static_cast<float*>(to);
  for (std::size_t i = 0; i < lows.size(); ++i) numbers[i] = join_float({highs[i], lows[i]});
}

void write_logical(Executor& executor, Value v, const void* from) {
  const Value high = high_half(executor.graph(), v);
  if (!high) return executor.write(v, from, executor.local_bytes(v));
  std::vector<std::int16_t> lows(static_cast<std::size_t>(executor.local_bytes(v)) / sizeof(std::int16_t));
  std::vector<std::uint16_t> highs(lows.size());
  const auto* numbers = static_cast<const float*>(from);
  for (std::size_t i = 0; i < lows.size(); ++i) {
    const SplitFloat parts = split_float(numbers[i]);
    highs[i] = parts.high, lows[i] = parts.low;
  }
  executor.write(v, lows.data(), executor.local_bytes(v));
  executor.write(high, highs.data(), executor.local_bytes(high));
}

std::vector<std::byte> gather_on_first(const Executor& executor, Value v, Transport* transport) {
  const Graph& graph = executor.graph();
  const Type type = logical_type(graph, v);
  const auto element = size_bytes(type.dtype);
  std::vector<std::byte> mine(static_cast<std::size_t>(logical_bytes(executor, v)));
  read_logical(executor, v, mine.data());
  if (!transport) return mine;
  Transport& host = transport->host();
  Group all(static_cast<std::size_t>(host.size()));
  std::iota(all.begin(), all.end(), 0);
  std::vector<ConstBytes> send(all.size());
  std::vector<Bytes> recv(all.size());
  if (is_first_holder(graph, v, host.rank())) send[0] = {mine.data(), static_cast<std::int64_t>(mine.size())};
  std::vector<std::vector<std::byte>> pieces(all.size());
  if (host.rank() == 0)
    for (const int r : all) {
      if (!is_first_holder(graph, v, r)) continue;
      auto& piece = pieces[static_cast<std::size_t>(r)];
      piece.resize(static_cast<std::size_t>(num_elements(local_shape(type.shape, type.placement, graph.mesh, r)) * element));
      recv[static_cast<std::size_t>(r)] = {piece.data(), static_cast<std::int64_t>(piece.size())};
    }
  host.exchange(all, send, recv, "collecting @" + graph[v].name);
  if (host.rank() != 0) return {};
  std::vector<std::byte> whole(static_cast<std::size_t>(type.bytes()));
  for (const int r : all) {
    const std::byte* from = pieces[static_cast<std::size_t>(r)].data();
    if (!is_first_holder(graph, v, r)) continue;
    for (const Box& box : held_boxes(graph, v, r)) {
      for_each_run(type.shape, box, [&](std::int64_t first, std::int64_t at, std::int64_t count) {
        std::memcpy(whole.data() + first * element, from + at * element, static_cast<std::size_t>(count * element));
      });
      from += num_elements(box) * element;
    }
  }
  return whole;
}

}    // namespace sheaf
