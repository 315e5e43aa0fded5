-- Removes the votes of the next shelves of a poll, and what was counted of them: tally and votes
-- agree after each slice. Admitted receipts stay admitted, and the organiser's word stands.
-- ARGV: poll, number of the first shelf, most shelves, most votes.
-- Returns lines: the number of the next shelf, '' at the end; how many votes were removed.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally = base .. 'meta', base .. 'tally'
local points = {}
for value in string.gmatch(redis.call('HGET', meta, 'points') or '', '[^>]+') do
  points[#points + 1] = tonumber(value)
end
local at, removed, deltas, keys = tonumber(ARGV[2]), 0, {}, {}
local last = math.min(SHELVES, at + tonumber(ARGV[3]))
while at < last and removed < tonumber(ARGV[4]) do
  for _, bucket in ipairs(shelf(base, at)) do
    local key = base .. 'votes:' .. bucket
    local votes = redis.call('HVALS', key)
    if #votes > 0 then keys[#keys + 1] = key end
    for _, value in ipairs(votes) do
      removed = removed + 1
      local place = 0
      for code in string.gmatch(value, '[^>]+') do
        place = place + 1
        deltas[code] = (deltas[code] or 0) - (points[place] or 0)
      end
    end
  end
  at = at + 1
end
-- A recount under way would not know of it.
redis.call('UNLINK', base .. 'recount')
for code, delta in pairs(deltas) do redis.call('HINCRBY', tally, code, delta) end
if removed > 0 then redis.call('HINCRBY', meta, 'voters', -removed) end
for _, key in ipairs(keys) do redis.call('UNLINK', key) end
if at < SHELVES then return at .. '\n' .. removed end
-- Nobody voted meanwhile: the points may be other ones from now on.
if tonumber(redis.call('HGET', meta, 'voters') or 0) == 0 then
  redis.call('HDEL', meta, 'points')
  redis.call('UNLINK', tally)
end
redis.call('HINCRBY', meta, 'version', 1)
redis.call('PUBLISH', 'f1:changed', ARGV[1])
return '\n' .. removed
