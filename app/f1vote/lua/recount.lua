-- A slice of a recount: the next buckets, until enough votes were counted. Begins one if none is
-- under way, and ends it with the comparison. vote.lua adds what changes behind the cursor.
-- ARGV: poll, points by place ('3>2>1'), most buckets, most votes.
-- Returns 1 if the recount has ended with this slice, else 0.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally, recount = base .. 'meta', base .. 'tally', base .. 'recount'
local BUCKETS, ALPHABET = 32768, '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local points = {}
for value in string.gmatch(ARGV[2], '[^>]+') do points[#points + 1] = tonumber(value) end
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local cursor = redis.call('HGET', recount, 'cursor')
if not cursor then
  cursor = 0
  redis.call('HSET', recount, 'began', string.format('%.3f', now))
end
cursor = tonumber(cursor)

local function letter(number)
  return string.sub(ALPHABET, number + 1, number + 1)
end
local counts, voters = {}, 0
local last = math.min(BUCKETS, cursor + tonumber(ARGV[3]))
while cursor < last and voters < tonumber(ARGV[4]) do
  local high = math.floor(cursor / 1024)
  local middle = math.floor(cursor / 32) % 32
  local bucket = letter(high) .. letter(middle) .. letter(cursor % 32)
  for _, value in ipairs(redis.call('HVALS', base .. 'votes:' .. bucket)) do
    voters = voters + 1
    local place = 0
    for code in string.gmatch(value, '[^>]+') do
      place = place + 1
      counts[code] = (counts[code] or 0) + (points[place] or 0)
    end
  end
  cursor = cursor + 1
end
for code, n in pairs(counts) do redis.call('HINCRBY', recount, 'n:' .. code, n) end
if voters > 0 then redis.call('HINCRBY', recount, 'voters', voters) end
redis.call('HSET', recount, 'cursor', cursor)
if cursor < BUCKETS then return 0 end

-- Everything is counted: compare, in the same step in which nothing else can happen.
local found, scratch = {}, {'cursor', 'began', 'voters'}
local difference = 0
local fields = redis.call('HGETALL', recount)
local kept = {}
for at = 1, #fields, 2 do
  kept[fields[at]] = fields[at + 1]
  local code = string.match(fields[at], '^n:(.*)$')
  if code then
    found[code] = tonumber(fields[at + 1])
    scratch[#scratch + 1] = fields[at]
  end
end
local told = redis.call('HGETALL', tally)
for at = 1, #told, 2 do
  difference = difference + math.abs(tonumber(told[at + 1]) - (found[told[at]] or 0))
  found[told[at]] = nil
end
for _, n in pairs(found) do difference = difference + math.abs(n) end
local all = tonumber(redis.call('HGET', meta, 'voters') or 0)
difference = difference + math.abs(all - tonumber(kept['voters'] or 0))
local seconds = now - tonumber(kept['began'])
redis.call('HDEL', recount, unpack(scratch))
redis.call('HSET', recount, 'at', string.format('%.3f', now),
  'seconds', string.format('%.3f', seconds), 'difference', difference)
return 1
