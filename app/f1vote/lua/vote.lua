-- Votes of one poll, each judged by itself. Repeating them changes nothing.
-- ARGV: poll, opens, closes (Unix seconds; 0 = never), 1 if only admitted receipts may vote,
--       points by place ('3>2>1'), allowed codes ('NOR>PIA'), until when (Unix seconds) this call
--       may have an effect, votes ('receipt=code>code;…', no code withdraws).
-- Returns Redis's time, then 'outcome held' of each vote in their order, one a line; held is what
-- counted before. Only the time if the call came too late: then nothing was done.
local base = 'poll:' .. ARGV[1] .. ':'
local meta, tally, recount = base .. 'meta', base .. 'tally', base .. 'recount'
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local answer = {string.format('%.6f', now)}
-- Whoever sent this has given up or sent it again; a newer vote may have come since.
if now > tonumber(ARGV[7]) then return answer[1] end

-- The organiser's word counts more than the file's. The points are those of the first vote: other
-- ones in the file would take from the tally what was never added.
local kept = redis.call('HMGET', meta, 'opens', 'closes', 'frozen', 'points', 'told')
local opens, closes = tonumber(kept[1] or ARGV[2]), tonumber(kept[2] or ARGV[3])
local refused = (closes > 0 and now >= closes and 'closed')
  or (now < opens and 'early')
  or (kept[3] == '1' and 'frozen')
worth(kept[4] or ARGV[5])
local allowed = {}
for code in string.gmatch(ARGV[6], '[^>]+') do allowed[code] = true end

-- A recount under way has counted the buckets before its cursor: what changes there is its, too.
local cursor = redis.call('HGET', recount, 'cursor')
cursor = cursor and tonumber(cursor)

-- Does a vote name allowed codes, each once, and no more than there are places?
local judged = {}
local function valid(value)
  if judged[value] == nil then
    local seen, places, fine = {}, 0, true
    for code in string.gmatch(value .. '>', '([^>]*)>') do
      places = places + 1
      fine = fine and allowed[code] and not seen[code]
      seen[code] = true
    end
    judged[value] = fine and places <= #points
  end
  return judged[value]
end

local changes, voters, deltas = 0, 0, {}
local counted_voters, counted_deltas = 0, {}
local written = {}  -- by receipt: what will count after this call
for receipt, value in string.gmatch(ARGV[8], '([^=;]+)=([^;]*)') do
  local bucket, field = place_of(receipt)
  local held = written[receipt]
    or redis.call('HGET', base .. 'votes:' .. bucket, field) or ''
  local outcome
  if held == value then
    -- Before all else: a vote that was counted in time and is repeated late is counted.
    outcome = 'same'
  elseif refused then
    outcome = refused
  elseif ARGV[4] == '1' and redis.call('SISMEMBER', base .. 'codes', receipt) == 0 then
    outcome = 'code'
  elseif value ~= '' and not valid(value) then
    outcome = 'unknown'
  else
    outcome = value == '' and 'withdrawn' or held == '' and 'counted' or 'changed'
    written[receipt] = value
    local more = (value ~= '' and 1 or 0) - (held ~= '' and 1 or 0)
    changes, voters = changes + 1, voters + more
    add(deltas, held, -1)
    add(deltas, value, 1)
    if cursor and math.floor(number_of(bucket) / 8) < cursor then
      counted_voters = counted_voters + more
      add(counted_deltas, held, -1)
      add(counted_deltas, value, 1)
    end
  end
  answer[#answer + 1] = outcome .. ' ' .. held
end

if changes > 0 then
  -- The tally first: if it cannot be written, no vote is.
  for code, delta in pairs(deltas) do
    if delta ~= 0 then redis.call('HINCRBY', tally, code, delta) end
  end
  for code, delta in pairs(counted_deltas) do
    if delta ~= 0 then redis.call('HINCRBY', recount, 'n:' .. code, delta) end
  end
  if counted_voters ~= 0 then redis.call('HINCRBY', recount, 'voters', counted_voters) end
  if voters ~= 0 then redis.call('HINCRBY', meta, 'voters', voters) end
  if not kept[4] then redis.call('HSET', meta, 'points', ARGV[5]) end
  redis.call('HINCRBY', meta, 'version', changes)
  for receipt, value in pairs(written) do
    local bucket, field = place_of(receipt)
    local key = base .. 'votes:' .. bucket
    if value == '' then
      redis.call('HDEL', key, field)
    else
      redis.call('HSET', key, field, value)
      redis.call('SETBIT', base .. 'buckets', number_of(bucket), 1)
    end
  end
  -- Not for every vote: who hears it reads the standing a little later than this pause.
  local told = tonumber(kept[5] or 0)
  if now - told >= 0.2 or now < told then
    unlogged(function() redis.call('HSET', meta, 'told', string.format('%.3f', now)) end)
    redis.call('PUBLISH', 'f1:changed', ARGV[1])
  end
end
return table.concat(answer, '\n')
