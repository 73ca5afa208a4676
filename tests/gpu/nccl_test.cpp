// Transport nccl: two ranks as threads on two GPUs, and what works on one.
#include "comm/cuda/nccl.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>

#include <array>

#include "comm/local.h"
#include "comm/rank_threads.h"
#include "runtime/graph_capture.h"
#include "runtime/side_stream.h"

using namespace sheaf;
using namespace sheaf::test;

namespace {

// A thread per GPU, each on a stream of its own.
std::vector<Outcome> on_two_gpus(double timeout_s, const std::function<void(NcclTransport&)>& work) {
  LocalWorld world(2, 60);
  return run_ranks(2, [&](int rank) {
    const c10::InferenceMode mode;
    const auto device = static_cast<c10::DeviceIndex>(rank);
    const c10::cuda::CUDAGuard device_guard(device);
    const c10::cuda::CUDAStreamGuard stream_guard(c10::cuda::getStreamFromPool(false, device));
    NcclTransport transport(world.at(rank), rank, timeout_s);
    work(transport);
  });
}

at::TensorOptions on(int device, at::ScalarType type) {
  return at::device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device))).dtype(type);
}

#define NEEDS_TWO_GPUS() \
  if (c10::cuda::device_count() < 2) GTEST_SKIP() << "one GPU"

const Group kBoth = {0, 1};

}    // namespace

TEST(Nccl, collectives_of_all_types) {
  NEEDS_TWO_GPUS();
  for (const Outcome& o : on_two_gpus(60, [](NcclTransport& t) {
         t.prepare(kBoth);
         const std::pair<at::ScalarType, DType> types[] = {{at::kFloat, DType::fp32}, {at::kBFloat16, DType::bf16},
                                                           {at::kHalf, DType::fp16},  {at::kLong, DType::i64},
                                                           {at::kInt, DType::i32},    {at::kByte, DType::u8}};
         for (const auto& [type, dtype] : types)
           for (const auto& [reduction, wanted] : {std::pair{Reduction::sum, 7}, {Reduction::max, 4}, {Reduction::min, 3}}) {
             const at::Tensor x = at::full({6}, 3 + t.rank(), on(t.rank(), type)), part = at::zeros({3}, on(t.rank(), type)),
                              all = at::zeros({12}, on(t.rank(), type));
             t.reduce_scatter(kBoth, x.data_ptr(), part.data_ptr(), 3, dtype, reduction, "scatter");
             t.all_gather(kBoth, x.data_ptr(), all.data_ptr(), 6 * size_bytes(dtype), "gather");
             t.all_reduce(kBoth, x.data_ptr(), 6, dtype, reduction, "reduce");
             t.wait();
             EXPECT_TRUE(x.eq(wanted).all().item<bool>());
             EXPECT_TRUE(part.eq(wanted).all().item<bool>());
             EXPECT_TRUE(all.slice(0, 0, 6).eq(3).all().item<bool>() && all.slice(0, 6, 12).eq(4).all().item<bool>());
           }
       }))
    EXPECT_EQ(o.text, "");
}

TEST(Nccl, exchange_of_uneven_and_empty_pieces_in_one_batch) {
  NEEDS_TWO_GPUS();
  for (const Outcome& o : on_two_gpus(60, [](NcclTransport& t) {
         const Group backwards = {1, 0};
         t.prepare(kBoth), t.prepare(backwards), t.prepare({t.rank()}), t.prepare(kBoth);
         const int me = t.rank(), other = 1 - me;
         const at::Tensor out = at::arange(10, on(me, at::kByte)).add_(100 * me), in = at::zeros({10}, on(me, at::kByte)),
                          back = at::zeros({10}, on(me, at::kByte));
         std::array<ConstBytes, 2> send;
         std::array<Bytes, 2> recv;
         send[me] = {out.data_ptr(), 2}, recv[me] = {in.data_ptr(), 2};
         if (me == 0) send[other] = {out.data_ptr<std::uint8_t>() + 2, 8};
         if (me == 1) recv[other] = {in.data_ptr<std::uint8_t>() + 2, 8};
         t.begin_batch();
         t.exchange(kBoth, send, recv, "half of it");
         std::array<ConstBytes, 2> send_back;
         std::array<Bytes, 2> recv_back;
         send_back[me] = {out.data_ptr(), 10}, recv_back[me] = {back.data_ptr(), 10};    // index of the other in {1, 0}
         t.exchange(backwards, send_back, recv_back, "all of it");
         t.end_batch();
         t.wait();
         EXPECT_EQ(in[1].item<int>(), 100 * me + 1);
         EXPECT_EQ(in[9].item<int>(), me == 1 ? 9 : 0);
         EXPECT_EQ(back[9].item<int>(), 100 * other + 9);
       }))
    EXPECT_EQ(o.text, "");
}

TEST(Nccl, a_rank_that_does_not_come_is_noticed) {
  NEEDS_TWO_GPUS();
  const auto outcomes = on_two_gpus(1, [](NcclTransport& t) {
    t.prepare(kBoth);
    const at::Tensor x = at::zeros({6}, on(t.rank(), at::kFloat));
    t.all_reduce(kBoth, x.data_ptr(), 6, DType::fp32, Reduction::sum, "warm");
    t.wait();
    if (t.rank() == 1) return std::this_thread::sleep_for(std::chrono::seconds(3));
    t.all_reduce(kBoth, x.data_ptr(), 6, DType::fp32, Reduction::sum, "sum of @w");
    t.wait();
  });
  EXPECT_EQ(outcomes[0].kind, Outcome::rank_failure);
  EXPECT_TRUE(outcomes[0].text.starts_with("rank 0 waited 1 s for its GPU. Last launched: 'sum of @w' of ranks 0, 1\n"))
      << outcomes[0].text;
  EXPECT_LT(outcomes[0].seconds, 30);
}

TEST(Nccl, abort_ends_who_waits_for_the_gpu) {
  NEEDS_TWO_GPUS();
  const auto outcomes = on_two_gpus(60, [](NcclTransport& t) {
    t.prepare(kBoth);
    const at::Tensor x = at::zeros({6}, on(t.rank(), at::kFloat));
    t.all_reduce(kBoth, x.data_ptr(), 6, DType::fp32, Reduction::sum, "warm");
    t.wait();
    if (t.rank() == 1) {
      t.abort("rank 1: no more rows");
      throw std::runtime_error("no more rows");
    }
    t.all_reduce(kBoth, x.data_ptr(), 6, DType::fp32, Reduction::sum, "sum of @w");
    t.wait();
  });
  EXPECT_EQ(outcomes[0].kind, Outcome::rank_failure);
  EXPECT_EQ(outcomes[0].text, "rank 1: no more rows");
  EXPECT_LT(outcomes[0].seconds, 30);
}

// x = 2 (x + 1) on both: the sum runs on a stream that is forked off and joined again.
class SumOfBoth {
 public:
  explicit SumOfBoth(NcclTransport& t) : t_(t), x_(at::zeros({6}, on(t.rank(), at::kFloat))), side_(make_side_stream(t.rank())) {
    t.prepare(kBoth);
    for (int i = 0; i < 2; ++i) launch();
    t.wait();
    graph_ = capture_graph([&] { launch(); });
    x_.zero_();
  }
  void launch() {
    x_.add_(1);
    side_->run(0, [&] { t_.all_reduce(kBoth, x_.data_ptr(), 6, DType::fp32, Reduction::sum, "sum of @w"); });
    side_->wait_for_all();
  }
  void replay() { graph_->launch(); }
  const at::Tensor& x() const { return x_; }

 private:
  NcclTransport& t_;
  at::Tensor x_;
  std::unique_ptr<SideStream> side_;
  std::unique_ptr<CapturedGraph> graph_;
};

TEST(Nccl, captured_sums_replay_between_others) {
  NEEDS_TWO_GPUS();
  for (const Outcome& o : on_two_gpus(60, [](NcclTransport& t) {
         SumOfBoth sum(t);
         sum.replay();
         sum.replay();
         sum.launch();
         sum.replay();
         t.wait();
         EXPECT_TRUE(sum.x().eq(30).all().item<bool>());    // 2, 6, 14, 30
       }))
    EXPECT_EQ(o.kind, Outcome::ok) << o.text;
}

// NCCL gives a communicator up only when no graph holds it: the abort must not wait for that.
TEST(Nccl, abort_ends_who_waits_for_a_replay) {
  NEEDS_TWO_GPUS();
  const auto outcomes = on_two_gpus(60, [](NcclTransport& t) {
    SumOfBoth sum(t);
    if (t.rank() == 1) {
      t.abort("rank 1: no more rows");
      throw std::runtime_error("no more rows");
    }
    sum.replay();
    t.wait();
  });
  EXPECT_EQ(outcomes[0].kind, Outcome::rank_failure);
  EXPECT_EQ(outcomes[0].text, "rank 1: no more rows");
  EXPECT_LT(outcomes[0].seconds, 30);
}

TEST(Nccl, a_group_of_one_is_a_copy) {
  LocalWorld world(1, 60);
  NcclTransport t(world.at(0), 0, 60);
  t.prepare({0});
  const at::Tensor x = at::arange(4, on(0, at::kFloat)), y = at::zeros({4}, on(0, at::kFloat));
  t.begin_batch();
  t.reduce_scatter({0}, x.data_ptr(), y.data_ptr(), 2, DType::fp32, Reduction::sum, "scatter");
  t.exchange({0}, std::array{ConstBytes{x.data_ptr<float>() + 2, 8}}, std::array{Bytes{y.data_ptr<float>() + 2, 8}}, "copy");
  t.end_batch();
  t.wait();
  EXPECT_TRUE(x.eq(y).all().item<bool>());
}
