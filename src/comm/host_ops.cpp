#include "comm/host_ops.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

Group all_ranks(const Transport& transport) {
  Group group(transport.size());
  std::iota(group.begin(), group.end(), 0);
  return group;
}

// What each rank sends this one, given what this one sends each.
std::vector<std::string> exchange_texts(Transport& t, const std::vector<std::string_view>& out, std::string_view what) {
  const Group group = all_ranks(t);
  std::vector<std::int64_t> out_bytes, in_bytes(group.size());
  for (const std::string_view text : out) out_bytes.push_back(static_cast<std::int64_t>(text.size()));
  std::vector<ConstBytes> send;
  std::vector<Bytes> recv;
  for (std::size_t i = 0; i < group.size(); ++i) {
    send.push_back({&out_bytes[i], sizeof(std::int64_t)});
    recv.push_back({&in_bytes[i], sizeof(std::int64_t)});
  }
  t.exchange(group, send, recv, what);

  std::vector<std::string> in(group.size());
  for (std::size_t i = 0; i < group.size(); ++i) {
    in[i].resize(static_cast<std::size_t>(in_bytes[i]));
    send[i] = {out[i].data(), out_bytes[i]};
    recv[i] = {in[i].data(), in_bytes[i]};
  }
  t.exchange(group, send, recv, what);
  return in;
}

constexpr std::size_t kShown = 80;

// The line of `value` that position `at` is in, or some characters of it around `at`.
std::string excerpt(const std::string& value, std::size_t at) {
  const std::size_t before = at == 0 ? std::string::npos : value.rfind('\n', at - 1);
  const std::size_t line = before == std::string::npos ? 0 : before + 1, end = std::min(value.find('\n', at), value.size());
  const std::size_t begin = at - line > kShown / 4 && end - line > kShown ? at - kShown / 4 : line;
  std::string shown = value.substr(begin, std::min(kShown, end - begin));
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return quote((begin > line ? "..." : "") + shown + (begin + kShown < end ? "..." : ""));
}

}    // namespace

std::vector<std::string> all_gather_text(Transport& transport, const std::string& text, std::string_view what) {
  Transport& t = transport.host();
  return exchange_texts(t, std::vector<std::string_view>(t.size(), text), what);
}

std::string broadcast_text(Transport& transport, const std::string& of_root, int root, std::string_view what) {
  Transport& t = transport.host();
  SHEAF_CHECK(root >= 0 && root < t.size(), "'{}': root {} among {} ranks", what, root, t.size());
  return exchange_texts(t, std::vector<std::string_view>(t.size(), t.rank() == root ? std::string_view(of_root) : ""), what)[root];
}

void barrier(Transport& transport, std::string_view what) {
  Transport& t = transport.host();
  const char sent = 0;
  std::vector<char> received(t.size());
  std::vector<Bytes> recv(received.size());
  for (std::size_t i = 0; i < recv.size(); ++i) recv[i] = {&received[i], 1};
  t.exchange(all_ranks(t), std::vector<ConstBytes>(t.size(), ConstBytes{&sent, 1}), recv, what);
}

void expect_equal(Transport& transport, const std::string& value, std::string_view what) {
  const std::vector<std::string> values = all_gather_text(transport, value, fmt::format("comparing {}", what));
  // The value that most ranks have; of equals, that of the lowest rank.
  const auto holders = [&](const std::string& v) { return std::count(values.begin(), values.end(), v); };
  const auto usual = std::max_element(values.begin(), values.end(), [&](const auto& a, const auto& b) { return holders(a) < holders(b); });
  std::vector<std::string> others;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] != *usual) others.push_back(std::to_string(i));
  if (others.empty()) return;
  const std::string& other = values[std::stoul(others[0])];
  const std::size_t at = std::mismatch(usual->begin(), usual->end(), other.begin(), other.end()).first - usual->begin();
  if (others.size() > 16) others.resize(16), others.emplace_back("...");
  user_error(
      "{} must be the same on all ranks, but differs on rank{} {}\n  rank {} has {}\n  rank {} has {}\n"
      "start all ranks with the same program, files, arguments and environment",
      what, others.size() == 1 ? "" : "s", join(others, ", "), usual - values.begin(), excerpt(*usual, at), others[0], excerpt(other, at));
}

}    // namespace sheaf
