// CUDA rows of a router: scores, choices, counts, weights. Nothing is read back by the host.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "runtime/kernels/cuda/row_support.h"
#include "runtime/kernels/route.h"
#include "runtime/kernels/router.h"

namespace sheaf {
namespace {

constexpr std::int64_t kFew = 64;    // numbers that a thread has alone

bool is_i32(const Type& type) { return type.dtype == DType::i32; }
std::int64_t rows_of(const at::Tensor& x) { return x.numel() / std::max<std::int64_t>(1, x.size(-1)); }

// More than two summed of a group: in which order would show in the last bit. Sums of bf16 are bf16 in the op's own kernel.
bool takes_choose(const Attrs& attrs, const Types& in) {
  const std::int64_t groups = attrs.integer("groups");
  if (!is_plain_float(*in[0]) || in[0]->shape.back() > kMostExperts || (in[1] && in[1]->dtype != DType::fp32)) return false;
  return groups == 0 || (groups <= kMostGroups && attrs.integer("group_top") <= 2 && (in[0]->dtype == DType::fp32 || in[1]));
}
void choose_launch(const Args& a) {
  const auto number = [&](const char* name) { return static_cast<int>(a.attrs.integer(name)); };
  const at::Tensor& scores = a.in[0];
  const ChoiceRule rule{.experts = static_cast<int>(scores.size(-1)),
                        .k = number("k"),
                        .groups = number("groups"),
                        .kept_groups = number("kept_groups"),
                        .group_top = number("group_top")};
  check(choose_experts_device(a.out[0].data_ptr<std::int32_t>(), scores.const_data_ptr(), float_type(scores),
                              a.in[1].defined() ? a.in[1].const_data_ptr<float>() : nullptr, rows_of(scores), rule, current_stream()),
        "choose_experts");
}

// As much for every rank, whatever its experts are: what a call takes is measured before they are known.
at::Tensor room_for_counts(const Args& a) {
  return at::empty({num_pieces(a.in[0].numel()), a.attrs.integer("experts")}, a.in[0].options());
}
bool takes_ids(const Attrs& attrs, const Types& in) {
  return is_i32(*in[0]) && (in.size() < 2 || !in[1] || is_i32(*in[1])) && attrs.integer("experts") <= kMostExpertsToSort;
}
void count_launch(const Args& a) {
  const ExpertIds ids{integers(a.in[0]), nullptr, a.in[0].numel(), 0, static_cast<std::int32_t>(a.out[0].numel())};
  const at::Tensor counts = room_for_counts(a);
  check(count_experts_device(a.out[0].data_ptr<float>(), counts.data_ptr<std::int32_t>(), ids, current_stream()), "count_experts");
}
void route_launch(const Args& a) {
  const ExpertIds ids{integers(a.in[0]), a.in[1].defined() ? integers(a.in[1]) : nullptr, a.in[0].numel(),
                      static_cast<std::int32_t>(a.owner_begin), static_cast<std::int32_t>(a.owner_end)};
  const at::Tensor counts = room_for_counts(a);
  check(route_device(a.out[0].data_ptr<std::int32_t>(), a.out[1].data_ptr<std::int32_t>(), a.out[0].numel(),
                     counts.data_ptr<std::int32_t>(), ids, current_stream()),
        "route");
}

bool takes_softmax(const Attrs&, const Types& in) { return is_plain_float(*in[0]) && in[0]->shape.back() <= kMostExperts; }
void softmax_launch(const Args& a) {
  const at::Tensor& x = a.in[0];
  check(softmax_device(a.out[0].data_ptr(), x.const_data_ptr(), float_type(x), rows_of(x), x.size(-1), current_stream()), "softmax");
}
bool takes_softmax_rows_grad(const Attrs& attrs, const Types& in) { return takes_softmax(attrs, in) && in[1]->dtype == in[0]->dtype; }
void softmax_rows_grad_launch(const Args& a) {
  const at::Tensor& y = a.in[0];
  check(softmax_rows_grad_device(a.out[0].data_ptr(), y.const_data_ptr(), a.in[1].const_data_ptr(), float_type(y), rows_of(y), y.size(-1),
                                 current_stream()),
        "softmax_rows_grad");
}

bool takes_normalize(const Attrs&, const Types& in) { return is_plain_float(*in[0]) && in[0]->shape.back() <= kFew; }
FewNumbers few_numbers(const Args& a) {
  const at::Tensor& x = a.in[0];
  return {rows_of(x), x.size(-1), float_type(x), static_cast<float>(a.attrs.number("eps")), static_cast<float>(a.attrs.number("floor"))};
}
void normalize_launch(const Args& a) {
  check(normalize_device(a.out[0].data_ptr(), a.in[0].const_data_ptr(), few_numbers(a), current_stream()), "normalize");
}
bool takes_normalize_grad(const Attrs& attrs, const Types& in) { return takes_normalize(attrs, in) && in[1]->dtype == in[0]->dtype; }
void normalize_grad_launch(const Args& a) {
  check(normalize_grad_device(a.out[0].data_ptr(), a.in[0].const_data_ptr(), a.in[1].const_data_ptr(), few_numbers(a), current_stream()),
        "normalize_grad");
}

bool takes_take(const Attrs&, const Types& in) {
  const std::int64_t bytes = size_bytes(in[0]->dtype);
  return (bytes == 2 || bytes == 4) && is_i32(*in[1]);
}
TakenIds taken_ids(const at::Tensor& ids, const at::Tensor& whole) { return {integers(ids), rows_of(ids), ids.size(-1), whole.size(-1)}; }
void take_launch(const Args& a) {
  check(take_device(a.out[0].data_ptr(), a.in[0].const_data_ptr(), a.in[0].element_size(), taken_ids(a.in[1], a.in[0]), current_stream()),
        "take");
}
bool takes_put(const Attrs&, const Types& in) { return is_plain_float(*in[0]) && is_i32(*in[1]) && in[1]->shape.back() <= kFew; }
void put_launch(const Args& a) {
  check(put_device(a.out[0].data_ptr(), a.in[0].const_data_ptr(), float_type(a.in[0]), taken_ids(a.in[1], a.out[0]), current_stream()),
        "put");
}

}    // namespace

std::vector<KernelRow> cuda_router_rows() {
  constexpr DeviceKind cuda = DeviceKind::cuda;
  return {
      {.op = "softmax", .device = cuda, .name = "sheaf", .takes = takes_softmax, .launch = softmax_launch},
      {.op = "softmax_rows_grad", .device = cuda, .name = "sheaf", .takes = takes_softmax_rows_grad, .launch = softmax_rows_grad_launch},
      {.op = "choose_experts", .device = cuda, .name = "sheaf", .takes = takes_choose, .launch = choose_launch},
      {.op = "count_experts", .device = cuda, .name = "sheaf", .takes = takes_ids, .launch = count_launch},
      {.op = "route", .device = cuda, .name = "sheaf", .takes = takes_ids, .launch = route_launch},
      {.op = "take", .device = cuda, .name = "sheaf", .takes = takes_take, .launch = take_launch},
      {.op = "put", .device = cuda, .name = "sheaf", .takes = takes_put, .launch = put_launch},
      {.op = "normalize", .device = cuda, .name = "sheaf", .takes = takes_normalize, .launch = normalize_launch},
      {.op = "normalize_grad", .device = cuda, .name = "sheaf", .takes = takes_normalize_grad, .launch = normalize_grad_launch},
  };
}

}    // namespace sheaf
