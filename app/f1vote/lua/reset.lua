-- Removes some votes of a poll, and what was counted of them: tally and votes agree after each
-- slice. Admitted receipts stay admitted, and the organiser's word stands.
-- ARGV: poll, where to go on (0 at first), how many, about.
-- Returns lines: where to go on, '' at the end; how many votes were removed.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally = base .. 'meta', base .. 'tally'
local points = {}
for value in string.gmatch(redis.call('HGET', meta, 'points') or '', '[^>]+') do
  points[#points + 1] = tonumber(value)
end
local removed, deltas, keys = 0, {}, {}
local rest = walk(base, tonumber(ARGV[2]), tonumber(ARGV[3]), function(bucket)
  local key = base .. 'votes:' .. bucket
  local votes = redis.call('HVALS', key)
  keys[#keys + 1] = key
  removed = removed + #votes
  for _, value in ipairs(votes) do
    local place = 0
    for code in string.gmatch(value, '[^>]+') do
      place = place + 1
      deltas[code] = (deltas[code] or 0) - (points[place] or 0)
    end
  end
  return #votes
end)
-- A recount under way would not know of it.
redis.call('UNLINK', base .. 'recount')
for code, delta in pairs(deltas) do redis.call('HINCRBY', tally, code, delta) end
if removed > 0 then redis.call('HINCRBY', meta, 'voters', -removed) end
for _, key in ipairs(keys) do redis.call('UNLINK', key) end
if rest == '' then
  -- If nobody voted meanwhile, the points may be other ones from now on.
  if tonumber(redis.call('HGET', meta, 'voters') or 0) == 0 then
    redis.call('HDEL', meta, 'points')
    redis.call('UNLINK', tally, base .. 'buckets')
  end
  redis.call('HINCRBY', meta, 'version', 1)
  redis.call('PUBLISH', 'f1:changed', ARGV[1])
end
return rest .. '\n' .. removed
