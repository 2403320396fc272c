// GemmKernels with a register tile (tile.h), compiled once for each instruction set (ELASTIC_LEVEL).
//
// Blocks. B lies packed in panels of kColumns columns and at most kDepth rows of B: [depth block][panel][row][column],
// zeros where the last panel reaches over the edge. Of A, kTiles * kRows rows by kDepth columns at a time are copied
// (and normalised, where a norm comes before) into a buffer that stays in the second-level cache; each of its tiles
// meets each panel in registers. The buffer's rows are kStride long, not a power of two apart, so that they do not
// compete for the same lines of the cache. A depth over kDepth is summed block by block in C.
#ifndef __AVX512BF16__  // bfloat16 has products of its own
#include "training/epilogue.h"

namespace elastic::ELASTIC_LEVEL {
namespace {

constexpr int64_t kStride = kDepth + 16, kTiles = 16, kBlock = kTiles * kRows;

template <class T>
int64_t packed_size(int64_t k, int64_t n) {
  constexpr int64_t kColumns = Vector<T>::columns;
  return k * ((n + kColumns - 1) / kColumns * kColumns);
}

// The panels [first, last) of B. Along whichever axis B is contiguous, it is read.
template <class T>
void pack(const T* b, int64_t row_step, int64_t column_step, int64_t k, int64_t n, int64_t first, int64_t last,
          T* packed) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const int64_t panels = (n + kColumns - 1) / kColumns;
  for (int64_t k0 = 0; k0 < k; k0 += kDepth)
    for (int64_t panel = first; panel < last; panel++) {
      const int64_t depth = std::min(kDepth, k - k0), j0 = panel * kColumns, there = std::min(kColumns, n - j0);
      const T* from = b + k0 * row_step + j0 * column_step;
      T* to = packed + (k0 * panels + panel * depth) * kColumns;
      if (there < kColumns) std::fill(to, to + depth * kColumns, T(0));
      if (row_step == 1) {
        for (int64_t j = 0; j < there; j++)
          for (int64_t r = 0; r < depth; r++) to[r * kColumns + j] = from[r + j * column_step];
      } else {
        for (int64_t r = 0; r < depth; r++)
          for (int64_t j = 0; j < there; j++) to[r * kColumns + j] = from[r * row_step + j * column_step];
      }
    }
}

// A block of rows of A by a depth of its columns, and the block that follows it.
template <class T>
struct Block {
  int64_t row, rows, k, depth;
  bool first, last;  // of the depths
  const T* next;     // its first element in A
  int64_t next_rows, next_depth;

  Block(const Gemm<T>& p, int64_t row, int64_t end, int64_t k) : row(row), k(k) {
    rows = std::min(kBlock, end - row);
    depth = std::min(kDepth, p.k - k);
    first = k == 0;
    last = k + depth == p.k;
    const int64_t next_row = last ? row + rows : row, next_k = last ? 0 : k + depth;
    next = p.a + next_row * p.k + next_k;
    next_rows = std::min(kBlock, end - next_row);
    next_depth = std::min(kDepth, p.k - next_k);
  }
};

// All tiles of one block with one panel of B.
template <class T>
void run_panel(const Gemm<T>& p, const Block<T>& block, int64_t panel, int64_t panels, const T* copied,
               const PixelTaps<T>* taps, const ColumnSums<T>& sums) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const T* b = p.packed + (block.k * panels + panel * block.depth) * kColumns;
  const int64_t j0 = panel * kColumns, columns = std::min(kColumns, p.n - j0);
  const Share share(block.next_depth * sizeof(T), panel, panels);
  for (int64_t r = 0; r < block.rows; r += kRows) {
    const int64_t there = std::min<int64_t>(kRows, block.rows - r), row = block.row + r;
    const bool more = r + kRows < block.rows;  // rows for this panel; else the next panel, or block, begins
    const int64_t next_row = more ? row + kRows : block.row, next_j0 = more ? j0 : j0 + kColumns;
    const int64_t fetched = next_j0 < p.n ? std::min<int64_t>(kRows, block.row + block.rows - next_row) : 0;
    const PixelTaps<T>* next_taps = taps ? taps + (next_row - block.row) : nullptr;
    auto ahead = [&](int64_t i) __attribute__((always_inline)) {
      if (i < fetched) fetch_epilogue(p, next_row + i, next_taps ? next_taps + i : nullptr, next_j0);
      if (r + i < block.next_rows) share.fetch_from(block.next + (r + i) * p.k);
    };
    product_into<kRows, kStride, 1>(copied + r * kStride, b, block.depth, there, columns, p.c + row * p.n + j0, p.n,
                                    !block.first, ahead);
    if (!block.last) continue;
    if (sums.pivot && sums.first_row == row) std::copy_n(p.c + row * p.n + j0, columns, sums.pivot + j0);
    const Product<T> product{p.c + row * p.n + j0, p.n};
    tile_epilogue(p, product, row, there, taps ? taps + r : nullptr, j0, columns, sums);
  }
}

template <class T>
void run_gemm(const Gemm<T>& p, int64_t begin, int64_t end, const ColumnSums<T>& sums) {
  constexpr int64_t kColumns = Vector<T>::columns;
  const int64_t panels = (p.n + kColumns - 1) / kColumns;
  const std::unique_ptr<T[]> copied(new T[kBlock * kStride + 16]);
  PixelTaps<T> taps[kBlock];
  const bool spatial = p.low || p.pooled || p.active;
  for (int64_t row = begin; row < end; row += kBlock) {
    if (spatial) find_taps(row, std::min(kBlock, end - row), p.height, p.width, taps);
    for (int64_t k = 0; k < p.k; k += kDepth) {
      const Block<T> block(p, row, end, k);
      for (int64_t r = 0; r < block.rows; r++)
        copy_normalized(p.a + (row + r) * p.k + k, p.scale ? p.scale + k : nullptr, p.shift + (p.scale ? k : 0),
                        block.depth, copied.get() + r * kStride);
      for (int64_t panel = 0; panel < panels; panel++)
        run_panel(p, block, panel, panels, copied.get(), spatial ? taps : nullptr, sums);
    }
    move_sums(sums, p.n);
  }
}

}  // namespace

template <class T>
void set_gemm(TrainingKernels<T>& table) {
  table.panel = Vector<T>::columns;
  table.packed_size = &packed_size<T>;
  table.pack = &pack<T>;
  table.gemm = &run_gemm<T>;
}
ELASTIC_FOR_ELEMENT_TYPES(set_gemm)

}  // namespace elastic::ELASTIC_LEVEL

#endif
