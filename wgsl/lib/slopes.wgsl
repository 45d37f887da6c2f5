// What the gradients of attention share: dS and P in tiles of 8 × 8, made again from what forward saved.
import package::lib::elem::elem;
import package::lib::attention::{p, v, Tile, Bases};

@group(0) @binding(5) var<storage, read> dy: array<vec4<elem>>;
@group(0) @binding(4) var<storage, read> saved: array<vec4u>; // what known_rows made

alias Known = array<vec4u, 8>;
fn known_from(group: vec3u, first: u32) -> Known {
  var rows: Known;
  for (var r = 0u; r < 8u; r++) {
    rows[r] = saved[(group.z * p.groups + group.y) * p.rows + min(first + r, p.rows - 1u)];
    // A row past the end repeats the last one, and must not count twice.
    if (first + r >= p.rows) { rows[r] = vec4u(rows[r].xy, 0u, 0u); }
  }
  return rows;
}
fn ranges_of(rows: Known) -> array<vec2u, 8> {
  var range: array<vec2u, 8>;
  for (var r = 0u; r < 8u; r++) { range[r] = rows[r].zw; }
  return range;
}

// Scores become weights P.
fn weights(rows: Known, tile: ptr<function, Tile>) {
  for (var r = 0u; r < 8u; r++) {
    (*tile)[r][0] = exp((*tile)[r][0] - bitcast<f32>(rows[r].x));
    (*tile)[r][1] = exp((*tile)[r][1] - bitcast<f32>(rows[r].x));
  }
}

// Scores become weights P; the result is scale * dS.
fn slopes(rows: Known, row: Bases, key: Bases, weight: ptr<function, Tile>) -> Tile {
  var along: Tile;
  for (var d = 0u; d < p.quads; d++) {
    var right: array<vec4f, 8>;
    for (var c = 0u; c < 8u; c++) { right[c] = vec4f(v[key[c] + d]); }
    for (var r = 0u; r < 8u; r++) {
      let left = vec4f(dy[row[r] + d]);
      along[r][0] += vec4f(dot(left, right[0]), dot(left, right[1]), dot(left, right[2]), dot(left, right[3]));
      along[r][1] += vec4f(dot(left, right[4]), dot(left, right[5]), dot(left, right[6]), dot(left, right[7]));
    }
  }
  weights(rows, weight);
  for (var r = 0u; r < 8u; r++) {
    along[r][0] = (*weight)[r][0] * (along[r][0] - bitcast<f32>(rows[r].y)) * p.scale;
    along[r][1] = (*weight)[r][1] * (along[r][1] - bitcast<f32>(rows[r].y)) * p.scale;
  }
  return along;
}
