// Rows of a that the lanes of a subgroup lend each other: each loads a few rows, and a shuffle gives row r to all. On a GPU
// in software a load costs dozens of cycles and a shuffle a few; `rows` rows then cost rows / lent loads instead of rows.
// All lanes of a subgroup must want the same rows and stay in step, so nothing returns early: clamp, and guard stores.
override lent: u32 = 8; // lanes that lend, a power of two and at most those of a subgroup
override rows: u32 = 32; // of a tile; a multiple of `lent`, at most 4 * lent
const loads = rows / lent;
const held = max(loads, 4u); // vec4s of a in a lane's registers

// A tile of sums: `rows` rows × the four columns of this lane.
alias Sums = array<vec4f, rows>;
