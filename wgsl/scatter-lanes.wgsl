// total += sum over rows r of weights[r] * z zᵀ,   z = x[r] - shift, as in scatter.wgsl, and into the same packed triangle;
// the lanes of a subgroup lend each other columns, as lib/lanes.wgsl says. x (rows, 4 * width)   weights (rows)
// A workgroup makes 4 * lent rows × 4 * across columns of the matrix: a lane has four columns, and loads four of those that
// stand for rows, which a shuffle gives to all; four rows at a time, or the sums would go to memory and back for each.
// Tiles below the diagonal end. Every `span` rows the sums go into the pair hi + lo: nothing else is written. Rows of
// weight 0 may hold anything: they are loaded, since a branch costs more, and thrown away.
import package::lib::elem::elem;
import package::lib::pairs::{added, Pair};

struct Params { width: u32, rows: u32, zero: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read> shift: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> hi: array<vec4f>; // blocks of 8 × 8: (blocks, 8, 2)
@group(0) @binding(5) var<storage, read_write> lo: array<vec4f>;

override lent: u32 = 8; // lanes that lend, a power of two and at most those of a subgroup
override across: u32 = 8; // lanes of a workgroup, at least `lent`
const tall = 4u * lent;
const span = 512u; // rows that one f32 sum may run over

@compute @workgroup_size(across)
fn blocks(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32,
          @builtin(subgroup_invocation_id) lane: u32) {
  if (lent * group.y > across * group.x + across - 1u) { return; } // the same for the whole workgroup
  let last = p.width - 1u;
  let quad = group.x * across + local;
  let left_at = min(group.y * lent + lane % lent, last);
  let right_at = min(quad, last);
  let left_shift = shift[left_at];
  let right_shift = shift[right_at];
  var sum: array<vec4f, tall>;
  for (var first = 0u; first < p.rows; first += span) {
    for (var r = 0u; r < tall; r++) { sum[r] = vec4f(); }
    let end = min(first + span, p.rows);
    for (var row = first; row < end; row += 4u) {
      var left: array<vec4f, 4>;
      var right: array<vec4f, 4>;
      for (var i = 0u; i < 4u; i++) {
        let at = min(row + i, end - 1u);
        let weight = select(0.0, weights[at], end > row + i);
        let counts = vec4<bool>(weight != 0.0);
        left[i] = select(vec4f(), vec4f(x[at * p.width + left_at]) - left_shift, counts);
        right[i] = select(vec4f(), weight * (vec4f(x[at * p.width + right_at]) - right_shift), counts);
      }
      for (var r = 0u; r < tall; r++) {
        var l: vec4f;
        for (var i = 0u; i < 4u; i++) { l[i] = subgroupShuffle(left[i][r % 4u], r / 4u); }
        sum[r] += l.x * right[0] + l.y * right[1] + l.z * right[2] + l.w * right[3];
      }
    }
    // Block row i of block column j, of those that there are in the upper triangle.
    let j = quad / 2u;
    for (var r = 0u; r < tall; r++) {
      let i = (group.y * tall + r) / 8u;
      if (i <= j && last / 2u >= j) {
        let at = 16u * (j * (j + 1u) / 2u + i) + 2u * (r % 8u) + quad % 2u;
        let pair = added(Pair(hi[at], lo[at]), sum[r], p.zero);
        hi[at] = pair.hi;
        lo[at] = pair.lo;
      }
    }
  }
}
