#include <ATen/core/Tensor.h>

#include "ops/builder.h"

namespace sheaf {

// `table` gives the extent of v; its elements are not read. In fp32 for low-precision dy: many tokens are summed.
OpDef embedding_grad() {
  return {
      .doc = "dtable[v, k] = sum of dy[.., k] where ids[..] = v and v is not padding_id",
      .rule = ".. k, .., v k -> v k; owner v; linear dy",
      .dtype = [](const Attrs&, const Types& in, std::size_t) { return size_bytes(in[0]->dtype) == 2 ? DType::fp32 : in[0]->dtype; },
      .flops = [](const Attrs&, const Types& in) { return static_cast<double>(num_elements(in[0]->shape)); },
      .kernel =
          [](const Args& a) {
            at::Tensor out = a.out[0].zero_();
            const std::int64_t n = out.size(0);
            if (out.numel() == 0 || a.in[0].numel() == 0) return;
            const at::Tensor ids = a.in[1].flatten().to(at::kLong), local = ids.sub(a.owner_begin);
            const at::Tensor mine = local.ge(0).logical_and(local.lt(n)).logical_and(ids.ne(a.attrs.integer("padding_id")));
            const at::Tensor dy = a.in[0].reshape({-1, out.size(1)}).to(out.scalar_type()).mul(mine.unsqueeze(1));
            out.index_add_(0, local.clamp(0, n - 1), dy);
          },
      .exact = true,
      .atomic_adds = true,    // index_add_
      .cases = {{.dims = {{"v", {7}}, {"k", {3}}, {"..", {2, 5}}}, .domain = {Real, Index("v"), Real}, .attrs = {{"padding_id", Int(2)}}}}};
}

}    // namespace sheaf
