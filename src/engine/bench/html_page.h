#pragma once
// One HTML page without anything outside it, light or dark as the reader's system is; and tables for a terminal, for Markdown and for it.
#include <string>
#include <vector>

namespace sheaf {

std::string html_escape(const std::string& text);
std::string html_page(const std::string& title, const std::string& body);
// Names beside the colours of their curves (chart.h).
struct LegendEntry {
  std::string name;
  int color = 0;
  bool dashed = false;
};
std::string html_legend(const std::vector<LegendEntry>& entries);

struct ReportTable {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> kinds;    // of rows, for their colour in HTML: "", "good", "bad", "predicted", "missing"
  void add(std::vector<std::string> row, const std::string& kind = "") { rows.push_back(std::move(row)), kinds.push_back(kind); }
};
std::string text_of(const ReportTable& table);
std::string markdown_of(const ReportTable& table);
std::string html_of(const ReportTable& table);

}    // namespace sheaf
