-- Stands before the other scripts. A receipt's vote is in the hash (bucket) that its first four
-- characters name, under the other nine: some ten votes in each of ten million voters. The 32
-- buckets that share three characters are a shelf; walks go shelf by shelf.
local ALPHABET, SHELVES = '0123456789ABCDEFGHJKMNPQRSTVWXYZ', 32768

-- The end of the bucket's key, and the field.
local function place_of(receipt)
  return string.sub(receipt, 1, 4), string.sub(receipt, 5)
end

local function shelf_of(receipt)
  local number = 0
  for at = 1, 3 do
    number = number * 32 + string.find(ALPHABET, string.sub(receipt, at, at), 1, true) - 1
  end
  return number
end

local function letter(number)
  return string.sub(ALPHABET, number + 1, number + 1)
end

-- The buckets of a shelf, by the end of their keys; none if all are empty.
local function shelf(base, number)
  local name = letter(math.floor(number / 1024)) .. letter(math.floor(number / 32) % 32)
    .. letter(number % 32)
  local names, keys = {}, {}
  for last in string.gmatch(ALPHABET, '.') do
    names[#names + 1] = name .. last
    keys[#keys + 1] = base .. 'votes:' .. names[#names]
  end
  -- Most shelves of a small poll are empty, and there are many.
  return redis.call('EXISTS', unpack(keys)) > 0 and names or {}
end
