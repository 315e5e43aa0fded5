-- A slice of a recount. It begins one if none is under way, and ends it with the comparison;
-- vote.lua adds what changes behind the cursor.
-- ARGV: poll, who drives, for how long (s) nobody else shall, how old (s) the last result shall be
--       before the next recount begins (-1: begin anew, whoever drives), how many votes, about.
-- Returns 'idle' if there is nothing to do or another one drives, 'more', or 'ended'.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally, recount = base .. 'meta', base .. 'tally', base .. 'recount'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- The counted so far: fields 'n:<code>' and 'voters'.
local function forget()
  for _, field in ipairs(redis.call('HKEYS', recount)) do
    if field == 'voters' or string.sub(field, 1, 2) == 'n:' then
      redis.call('HDEL', recount, field)
    end
  end
end

local kept = redis.call('HMGET', recount, 'cursor', 'driver', 'until', 'at')
local cursor, period = kept[1], tonumber(ARGV[4])
if period < 0 then
  cursor = nil
elseif cursor then
  if kept[2] ~= ARGV[2] and now < tonumber(kept[3] or 0) then return 'idle' end
elseif kept[4] and now >= tonumber(kept[4]) and now < tonumber(kept[4]) + period then
  return 'idle'
end
if not cursor then
  forget()
  cursor = 0
  unlogged(function() redis.call('HSET', recount, 'began', string.format('%.3f', now)) end)
end

local counts, voters = {}, 0
-- Without a vote there are no points, and none are needed.
worth(redis.call('HGET', meta, 'points') or '')
local times = {}  -- how often each vote occurs: few differ
cursor = walk(base, tonumber(cursor), tonumber(ARGV[5]), function(bucket)
  local votes = redis.call('HVALS', base .. 'votes:' .. bucket)
  for _, value in ipairs(votes) do times[value] = (times[value] or 0) + 1 end
  voters = voters + #votes
  return #votes
end)
for value, n in pairs(times) do add(counts, value, n) end
for code, n in pairs(counts) do redis.call('HINCRBY', recount, 'n:' .. code, n) end
if voters > 0 then redis.call('HINCRBY', recount, 'voters', voters) end
redis.call('HSET', recount, 'cursor', cursor, 'driver', ARGV[2])
unlogged(function()
  redis.call('HSET', recount, 'until', string.format('%.3f', now + tonumber(ARGV[3])))
end)
if cursor ~= '' then return 'more' end

-- Everything is counted: it is compared in the same step, so nothing can come between.
local found, said = {}, {}
local fields = redis.call('HGETALL', recount)
for at = 1, #fields, 2 do
  said[fields[at]] = fields[at + 1]
  local code = string.match(fields[at], '^n:(.*)$')
  if code then found[code] = tonumber(fields[at + 1]) end
end
local difference =
  math.abs(tonumber(redis.call('HGET', meta, 'voters') or 0) - tonumber(said['voters'] or 0))
local told = redis.call('HGETALL', tally)
for at = 1, #told, 2 do
  difference = difference + math.abs(tonumber(told[at + 1]) - (found[told[at]] or 0))
  found[told[at]] = nil
end
for _, n in pairs(found) do difference = difference + math.abs(n) end
forget()
redis.call('HDEL', recount, 'cursor', 'began', 'driver', 'until')
unlogged(function()
  redis.call('HSET', recount, 'at', string.format('%.3f', now), 'difference', difference,
    'seconds', string.format('%.3f', now - tonumber(said['began'] or now)))
end)
return 'ended'
