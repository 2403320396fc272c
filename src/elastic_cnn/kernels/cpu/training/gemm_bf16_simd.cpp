// What gemm_simd.cpp does, for maps of bfloat16 (words.h).
//
// B lies packed in panels of kColumns columns: [panel][word of rows][column][2]. As many rows of A as stay in the
// second-level cache, all their columns, are copied into a buffer [block of kWords][row][kStride]; each tile of them
// meets each panel in registers, over the whole depth, so that sums are rounded once: at the end, in the epilogue.
#ifdef __AVX512BF16__
#include "training/epilogue.h"
#include "training/words.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

constexpr int64_t kStride = kWords + 16;  // not a power of two, so that rows do not compete for the cache's lines
constexpr int64_t kMostRows = 16 * kRows;

int64_t panels_of(int64_t n) { return (n + kColumns - 1) / kColumns; }

int64_t packed_size(int64_t k, int64_t n) { return 2 * words(k) * panels_of(n) * kColumns; }

// Two rows of `count` columns of a panel as words; without a second row, zeros in the upper halves.
void pack_rows(const float* first, const float* second, int64_t count, Word* to) {
#pragma GCC ivdep
  for (int64_t j = 0; j < count; j++)
    to[j] = Bfloat16(first[j]).bits | Word(second ? Bfloat16(second[j]).bits : 0) << 16;
}

// `count` columns of a panel, k elements each, that lie `step` apart.
void pack_columns(const float* from, int64_t step, int64_t k, int64_t count, Word* to) {
  constexpr int64_t kRun = 64;  // words of all columns that stay in the first-level cache
  Word run[kColumns][kRun];
  for (int64_t k0 = 0; k0 < k; k0 += 2 * kRun) {
    const int64_t there = std::min(2 * kRun, k - k0);
    for (int64_t j = 0; j < count; j++) {
      const float* column = from + j * step + k0;
#pragma GCC ivdep
      for (int64_t i = 0; i < there / 2; i++)
        run[j][i] = Bfloat16(column[2 * i]).bits | Word(Bfloat16(column[2 * i + 1]).bits) << 16;
      if (there % 2) run[j][there / 2] = Bfloat16(column[there - 1]).bits;
    }
    for (int64_t i = 0; i < words(there); i++)
      for (int64_t j = 0; j < count; j++) to[(k0 / 2 + i) * kColumns + j] = run[j][i];
  }
}

// B is contiguous along one of its axes.
void pack(const float* b, int64_t row_step, int64_t column_step, int64_t k, int64_t n, int64_t first, int64_t last,
          Bfloat16* packed) {
  for (int64_t panel = first; panel < last; panel++) {
    const int64_t j0 = panel * kColumns, there = std::min<int64_t>(kColumns, n - j0);
    const float* from = b + j0 * column_step;
    Word* to = reinterpret_cast<Word*>(packed) + panel * words(k) * kColumns;
    if (there < kColumns) std::fill(to, to + words(k) * kColumns, 0);
    if (row_step == 1) {
      pack_columns(from, column_step, k, there, to);
    } else {
      for (int64_t r = 0; r < k; r += 2)
        pack_rows(from + r * row_step, r + 1 < k ? from + (r + 1) * row_step : nullptr, there, to + r / 2 * kColumns);
    }
  }
}

// The copy of some rows of A. Rows beyond the last are not set, and their sums are not used.
struct Copy {
  int64_t count, rows, block;  // words of a row; rows at most; words from one block to the next
  std::unique_ptr<uint32_t[]> data;

  explicit Copy(int64_t k) : count(words(k)) {
    const int64_t blocks = (count + kWords - 1) / kWords;
    rows = std::clamp<int64_t>(kMostRows / blocks / kRows, 1, kMostRows / kRows) * kRows;
    block = rows * kStride;
    data.reset(new uint32_t[blocks * block]);
  }
  const Word* row(int64_t r) const { return data.get() + r * kStride; }

  void read(const Gemm<Bfloat16>& p, int64_t first, int64_t number) {
    for (int64_t r = 0; r < number; r++) {
      const Bfloat16* from = p.a + (first + r) * p.k;
      for (int64_t k = 0; k < p.k; k += 2 * kWords) {
        Bfloat16* to = reinterpret_cast<Bfloat16*>(data.get() + k / (2 * kWords) * block + r * kStride);
        const int64_t there = std::min(2 * kWords, p.k - k);
        if (p.scale) {
          normalize_row(from + k, p.scale + k, p.shift + k, there, to);
        } else {
          std::memcpy(to, from + k, there * sizeof(Bfloat16));
        }
        if (there % 2) to[there] = 0;
      }
    }
  }

 private:
  static void normalize_row(const Bfloat16* from, const float* scale, const float* shift, int64_t count, Bfloat16* to) {
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) store(to + j, normalized<Floats>(from + j, scale + j, shift + j));
    for (; j < count; j++) to[j] = normalized<float>(from + j, scale + j, shift + j);
  }
};

// All tiles of the rows [row, row + number) with one panel of B.
void run_panel(const Gemm<Bfloat16>& p, const Copy& copy, int64_t row, int64_t number, int64_t next_number,
               int64_t panel, const PixelTaps<Bfloat16>* taps, const ColumnSums<Bfloat16>& sums) {
  const Word* b = reinterpret_cast<const Word*>(p.packed) + panel * copy.count * kColumns;
  const int64_t j0 = panel * kColumns, columns = std::min<int64_t>(kColumns, p.n - j0);
  const Share share(p.k * sizeof(Bfloat16), panel, panels_of(p.n));
  alignas(64) float product[kRows * kColumns];
  for (int64_t r = 0; r < number; r += kRows) {
    const int64_t there = std::min<int64_t>(kRows, number - r);
    const bool more = r + kRows < number;  // rows for this panel; else the next panel, or block, begins
    const int64_t next = more ? r + kRows : 0, next_j0 = more ? j0 : j0 + kColumns;
    const int64_t fetched = next_j0 < p.n ? std::min<int64_t>(kRows, number - next) : 0;
    auto ahead = [&](int64_t i) __attribute__((always_inline)) {
      if (i < fetched) fetch_epilogue(p, row + next + i, taps ? taps + next + i : nullptr, next_j0);
      if (r + i < next_number) share.fetch_from(p.a + (row + number + r + i) * p.k);
    };
    word_product<kRows, kStride, 1>(copy.row(r), copy.block, b, copy.count, product, ahead);
    if (sums.pivot && sums.first_row == row + r) std::copy_n(product, columns, sums.pivot + j0);
    tile_epilogue(p, Product<Bfloat16>{product, kColumns}, row + r, there, taps ? taps + r : nullptr, j0, columns,
                  sums);
  }
}

void run_gemm(const Gemm<Bfloat16>& p, int64_t begin, int64_t end, const ColumnSums<Bfloat16>& sums) {
  Copy copy(p.k);
  PixelTaps<Bfloat16> taps[kMostRows];
  const bool spatial = p.low || p.pooled || p.active;
  for (int64_t row = begin; row < end; row += copy.rows) {
    const int64_t number = std::min(copy.rows, end - row), next_number = std::min(copy.rows, end - row - number);
    if (spatial) find_taps(row, number, p.height, p.width, taps);
    copy.read(p, row, number);
    for (int64_t panel = 0; panel < panels_of(p.n); panel++)
      run_panel(p, copy, row, number, next_number, panel, spatial ? taps : nullptr, sums);
    move_sums(sums, p.n);
  }
}

}  // namespace

template <class T>
void set_gemm(TrainingKernels<T>& table) {
  table.panel = kColumns;
  table.packed_size = &packed_size;
  table.pack = &pack;
  table.gemm = &run_gemm;
}
ELASTIC_FOR_ELEMENT_TYPES(set_gemm)

}  // namespace elastic::ELASTIC_LEVEL

#endif
