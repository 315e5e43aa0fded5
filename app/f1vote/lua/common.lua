-- Stands before the other scripts.
-- A receipt's vote is in the hash (bucket) that its first four
-- characters name, under the other nine: some ten votes in each of ten million voters.
-- poll:<id>:buckets has a bit for each bucket that ever held a vote, so that a walk through all
-- votes passes over the rest of the million.
local ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

-- Lets what `write` changes stay out of the append-only file: between votes, a time there would tell
-- when they were cast. After a restart it may be missing.
local function unlogged(write)
  redis.set_repl(redis.REPL_NONE)
  write()
  redis.set_repl(redis.REPL_ALL)
end

-- What each place of a vote is worth, once `worth` was told it ('3>2>1').
local points = {}
local function worth(text)
  for value in string.gmatch(text, '[^>]+') do points[#points + 1] = tonumber(value) end
end

-- Adds to `sums`, by code, what the vote `value` is worth, `times` times.
local function add(sums, value, times)
  local place = 0
  for code in string.gmatch(value, '[^>]+') do
    place = place + 1
    sums[code] = (sums[code] or 0) + times * (points[place] or 0)
  end
end

-- The end of the bucket's key, and the field.
local function place_of(receipt)
  return string.sub(receipt, 1, 4), string.sub(receipt, 5)
end

local function number_of(bucket)
  local number = 0
  for at = 1, 4 do
    number = number * 32 + string.find(ALPHABET, string.sub(bucket, at, at), 1, true) - 1
  end
  return number
end

local function letter(number)
  return string.sub(ALPHABET, number + 1, number + 1)
end

-- Visits buckets in order, eight by eight from the eight of number `at` on, until `visit`, which
-- returns how many votes it met, has met about `most`. Returns where to go on, '' at the end.
local function walk(base, at, most, visit)
  local marks = redis.call('GETRANGE', base .. 'buckets', at, -1)
  local from, met = 1, 0
  while met < most do
    local found = string.find(marks, '[^%z]', from)
    if not found then return '' end
    local eight, byte = at + found - 1, string.byte(marks, found)
    local name = letter(math.floor(eight / 4096)) .. letter(math.floor(eight / 128) % 32)
      .. letter(math.floor(eight / 4) % 32)
    for bit = 0, 7 do
      if math.floor(byte / 2 ^ (7 - bit)) % 2 == 1 then
        met = met + 1 + visit(name .. letter(eight % 4 * 8 + bit))
      end
    end
    from = found + 1
  end
  return at + from - 1
end
